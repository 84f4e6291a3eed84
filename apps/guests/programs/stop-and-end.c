/*
 * A process is stopped by its own child, which ends at once: whoever waits for the stop in sigsuspend is told of it, in
 * every round, whatever else is going on.
 */
#include <sys/wait.h>

static volatile sig_atomic_t is_stopped;
static pid_t child;

static void changed(int signal)
{
    int status, saved = errno;
    (void)signal;
    if (waitpid(child, &status, WUNTRACED | WNOHANG) == child && WIFSTOPPED(status))
        is_stopped = 1;
    errno = saved;
}

/* Has itself stopped, again and again. */
static void stops(int tell)
{
    pid_t me = getpid();
    signal(SIGCHLD, SIG_DFL);
    for (;;) {
        int status;
        pid_t grandchild = fork();
        if (grandchild == 0) {
            CHECK(write(tell, "x", 1) == 1);
            /* (At the end it may be dead.) */
            CHECK(kill(me, SIGSTOP) == 0 || errno == ESRCH);
            _exit(0);
        }
        CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0);
    }
}

int main(void)
{
    int tell[2];
    sigset_t chld, before;
    CHECK(pipe(tell) == 0);
    CHECK(signal(SIGCHLD, changed) != SIG_ERR);
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    /* The handler waits for `child`: it must not run before this is known. */
    CHECK(sigprocmask(SIG_BLOCK, &chld, &before) == 0);
    child = fork();
    CHECK(child >= 0);
    CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
    if (child == 0)
        stops(tell[1]);
    for (int round = 0; round < ROUNDS; round++) {
        char byte;
        while (read(tell[0], &byte, 1) != 1)
            CHECK(errno == EINTR);
        CHECK(sigprocmask(SIG_BLOCK, &chld, &before) == 0);
        sigdelset(&before, SIGCHLD);
        while (!is_stopped)
            sigsuspend(&before);
        is_stopped = 0;
        say("round %d: stopped", round);
        CHECK(kill(child, SIGCONT) == 0);
        CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
    }
    CHECK(kill(child, SIGKILL) == 0);
    say("ok");
    return 0;
}
