/* A child that gives up the rights of its parent: what it does, and that it ends, reaches the parent all the same,
 * whatever that waits in. (Without rights to give up, as an ordinary user, both have the same.) */
#include <grp.h>
#include <sys/wait.h>

static volatile sig_atomic_t ends;
static void ended(int sig) { (void)sig; ends++; }

static void wait_in(int how, const sigset_t *none)
{
    struct timespec long_time = {100, 0};
    while (ends == 0) {
        if (how == 0)
            sigsuspend(none);
        else
            ppoll(NULL, 0, &long_time, none);
    }
}

int main(void)
{
    sigset_t child, none;
    sigemptyset(&none);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signal(SIGCHLD, ended);
    for (int round = 0; round < ROUNDS / 3; round++) {
        ends = 0;
        pid_t pid = fork();
        if (pid == 0) {
            if (geteuid() == 0)
                CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
            /* By now the parent waits. */
            usleep(2000);
            say("round %d: of the child", round);
            _exit(round);
        }
        wait_in(round % 2, &none);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == round);
        say("round %d: it has ended", round);
    }
    say("ok");
    return 0;
}
