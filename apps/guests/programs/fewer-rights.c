/* A child that gives up the rights of its parent: what it does, and that it ends, reaches the parent all the same,
 * whatever that waits in; and what it stores into memory of both goes back with both. (Without rights to give up, as an
 * ordinary user, both have the same.) */
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
    int *count = mmap(NULL, 32768, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(count != MAP_FAILED);
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
            CHECK(count[0] == 3 * round && count[5000] == 3 * round);
            for (int i = 0; i < 3; i++) {
                say("round %d: of the child, %d", round, ++count[0]);
                count[5000]++;
            }
            _exit(round);
        }
        wait_in(round % 2, &none);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == round);
        say("round %d: it has ended at %d and %d", round, count[0], count[5000]);
    }
    say("ok");
    return 0;
}
