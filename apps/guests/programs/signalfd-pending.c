/*
 * Signals that wait for a signalfd: sent by another process of the run, seen by poll, and
 * read once, also of a signal that is ignored otherwise.
 */
#include <sys/signalfd.h>
#include <sys/wait.h>

static int fd;

static int waits(void)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0);
}

static void read_all(int round)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) {
        say("%d read %u value %d", round, info.ssi_signo, info.ssi_signo >= 34 ? info.ssi_int : 0);
        say("%d and then %d", round, waits());
    }
    CHECK(errno == EAGAIN);
}

/* Another thread makes what is visible, and so commits, while they wait. */
static void *say_beside(void *round)
{
    say("%d another thread: %d", *(int *)round, waits());
    say("%d once more: %d", *(int *)round, waits());
    return NULL;
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(signal(SIGURG, SIG_IGN) != SIG_ERR);
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(fd >= 0);
    int waiting = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    CHECK(waiting >= 0 && epoll_ctl(waiting, EPOLL_CTL_ADD, fd, &event) == 0);
    for (int round = 0; round < 4; round++) {
        int status;
        pid_t parent = getpid(), child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            say("%d child begins", round);
            CHECK(kill(parent, SIGURG) == 0);
            if (round & 1)
                CHECK(kill(parent, SIGUSR1) == 0);
            say("%d child has sent", round);
            for (int i = 0; round >= 2 && i < 3; i++)
                CHECK(sigqueue(parent, SIGRTMIN, (union sigval){10 * round + i}) == 0);
            say("%d child ends", round);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        say("%d waiting: %d", round, waits());
        say("%d still waiting: %d", round, waits());
        if (round == 3) {
            pthread_t other;
            CHECK(pthread_create(&other, NULL, say_beside, &round) == 0);
            CHECK(pthread_join(other, NULL) == 0);
        }
        CHECK(epoll_wait(waiting, &event, 1, 5000) == 1);
        read_all(round);
        /* One that comes while the set is waited for. */
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            nanosleep(&(struct timespec){0, 20000000}, NULL);
            CHECK(kill(parent, SIGURG) == 0);
            _exit(0);
        }
        say("%d waiting for another one", round);
        CHECK(epoll_wait(waiting, &event, 1, 8000) == 1);
        read_all(round);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return 0;
}
