/* Descriptors of processes: opened, given by clone3, polled, waited for, and signals through them. */
#include <linux/sched.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

static volatile sig_atomic_t came, value;

static void note(int number, siginfo_t *info, void *context)
{
    (void)context;
    came = number;
    value = info->si_value.sival_int;
}

static int ready(int fd, int timeout)
{
    struct pollfd asked = {.fd = fd, .events = POLLIN};
    int n = poll(&asked, 1, timeout);
    CHECK(n >= 0);
    return n == 1 && asked.revents & POLLIN;
}

static pid_t with_clone3(int *pidfd)
{
    struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)pidfd, .exit_signal = SIGCHLD};
    return syscall(SYS_clone3, &args, sizeof args);
}

static pid_t with_clone(int *pidfd)
{
    return syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, pidfd, 0, 0);
}

static char heard(int from)
{
    char what = 0;
    while (read(from, &what, 1) < 0 && errno == EINTR)
        ;
    return what;
}

/* A child that waits for signals, through a descriptor of one kind or another. */
static int signalled(int kind)
{
    int up[2], pidfd = -1, status;
    CHECK(pipe(up) == 0);
    pid_t child = kind == 0 ? with_clone3(&pidfd) : kind == 1 ? with_clone(&pidfd) : fork();
    CHECK(child >= 0);
    if (child == 0) {
        sigset_t mask, before;
        sigemptyset(&mask), sigaddset(&mask, SIGUSR1), sigaddset(&mask, SIGUSR2);
        CHECK(sigprocmask(SIG_BLOCK, &mask, &before) == 0);
        for (int i = 0; i < 2; i++) {
            CHECK(write(up[1], "r", 1) == 1);
            came = 0;
            while (!came)
                sigsuspend(&before);
            CHECK(came == (i ? SIGUSR2 : SIGUSR1) && (!i || value == 4711));
        }
        CHECK(write(up[1], "d", 1) == 1);
        for (;;)
            pause();
    }
    if (kind == 2)
        pidfd = pidfd_open(child, 0);
    CHECK(pidfd >= 0 && fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
    CHECK(heard(up[0]) == 'r' && !ready(pidfd, 0));
    CHECK(pidfd_send_signal(pidfd, 0, NULL, 0) == 0);
    CHECK(pidfd_send_signal(pidfd, SIGUSR1, NULL, 0) == 0);
    CHECK(heard(up[0]) == 'r');
    siginfo_t info = {.si_signo = SIGUSR2, .si_code = SI_QUEUE};
    info.si_pid = getpid(), info.si_uid = getuid(), info.si_value.sival_int = 4711;
    CHECK(pidfd_send_signal(pidfd, SIGUSR1, &info, 0) == -1 && errno == EINVAL);
    CHECK(pidfd_send_signal(pidfd, SIGUSR2, &info, 0) == 0);
    CHECK(heard(up[0]) == 'd');
    memset(&info, 1, sizeof info);
    CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0);
    CHECK(pidfd_send_signal(pidfd, kind == 1 ? SIGKILL : SIGTERM, NULL, 0) == 0);
    CHECK(ready(pidfd, -1));
    CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED | WNOWAIT) == 0 && info.si_pid == child);
    CHECK(pidfd_send_signal(pidfd, 0, NULL, 0) == 0);
    CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED) == 0 && info.si_pid == child);
    CHECK(ready(pidfd, 0));
    CHECK(pidfd_send_signal(pidfd, SIGTERM, NULL, 0) == -1 && errno == ESRCH);
    CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED) == -1 && errno == ECHILD);
    CHECK(waitpid(child, &status, 0) == -1 && errno == ECHILD);
    close(pidfd), close(up[0]), close(up[1]);
    return info.si_status;
}

/* One that does not wait, in an epoll set, and one that a child has inherited. */
static void in_a_set(void)
{
    int up[2], down[2], status;
    char what = 'x';
    siginfo_t info;
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(heard(down[0]) == 'x');
        _exit(3);
    }
    int pidfd = pidfd_open(child, PIDFD_NONBLOCK), set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 77};
    CHECK(pidfd >= 0 && set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, pidfd, &event) == 0);
    CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED) == -1 && errno == EAGAIN);
    CHECK(epoll_wait(set, &event, 1, 0) == 0);
    pid_t other = fork();
    if (other == 0) {
        CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED) == -1 && errno == ECHILD);
        CHECK(write(up[1], "r", 1) == 1);
        _exit(ready(pidfd, -1) ? 4 : 5);
    }
    CHECK(heard(up[0]) == 'r');
    CHECK(write(down[1], &what, 1) == 1);
    CHECK(epoll_wait(set, &event, 1, -1) == 1 && event.data.u32 == 77);
    CHECK(waitid(P_PIDFD, pidfd, &info, WEXITED) == 0 && info.si_status == 3);
    CHECK(waitpid(other, &status, 0) == other && WEXITSTATUS(status) == 4);
    close(pidfd), close(set);
    for (int i = 0; i < 2; i++)
        close(up[i]), close(down[i]);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    int own = pidfd_open(getpid(), 0);
    CHECK(own >= 0);
    for (int r = 1; r <= 6; r++) {
        CHECK(pidfd_open(-1, 0) == -1 && errno == EINVAL);
        CHECK(pidfd_open(getpid(), 1) == -1 && errno == EINVAL);
        CHECK(pidfd_send_signal(0, 0, NULL, 0) == -1 && errno == EBADF);
        CHECK(pidfd_send_signal(own, 0, NULL, 1 << 20) == -1 && errno == EINVAL);
        CHECK(kill(-1, 0) == 0);
        came = 0;
        CHECK(pidfd_send_signal(own, SIGUSR1, NULL, 0) == 0 && came == SIGUSR1 && !ready(own, 0));
        say("%d: own", r);
        int first = signalled(0), second = signalled(1), third = signalled(2);
        say("%d: signalled: %d %d %d", r, first, second, third);
        in_a_set();
        say("%d: in a set", r);
    }
    say("ok");
    return 0;
}
