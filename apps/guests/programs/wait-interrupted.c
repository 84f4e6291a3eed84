/* A wait for a child whose end is told by a signal, with a handler that does not restart calls: the wait answers with the
 * child. Only a signal while the child lives breaks it off. */
#include <sys/wait.h>

static volatile sig_atomic_t ends, others;
static void ended(int sig) { (void)sig; ends++; }
static void other(int sig) { (void)sig; others++; }

int main(void)
{
    struct sigaction on_end = {.sa_handler = ended}, on_other = {.sa_handler = other};
    CHECK(sigaction(SIGCHLD, &on_end, NULL) == 0 && sigaction(SIGUSR1, &on_other, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        int ready[2], status = 0;
        char byte;
        siginfo_t info = {0};
        CHECK(pipe(ready) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            pid_t parent = getppid();
            if (round % 3 == 2) {
                /* Until it has been interrupted. */
                CHECK(read(ready[0], &byte, 0) == 0);
                while (poll(&(struct pollfd){.fd = ready[0], .events = POLLIN}, 1, 2) == 0)
                    kill(parent, SIGUSR1);
            } else {
                usleep(1500);
            }
            _exit(round);
        }
        if (round % 3 == 2) {
            CHECK(waitpid(pid, &status, 0) < 0 && errno == EINTR && others > 0);
            sigset_t blocked;
            sigemptyset(&blocked);
            sigaddset(&blocked, SIGUSR1);
            sigprocmask(SIG_BLOCK, &blocked, NULL);
            CHECK(write(ready[1], "x", 1) == 1);
            CHECK(waitpid(pid, &status, 0) == pid);
            sigprocmask(SIG_UNBLOCK, &blocked, NULL);
        } else if (round % 3 == 1) {
            CHECK(waitid(P_PID, pid, &info, WEXITED) == 0 && info.si_pid == pid);
            status = info.si_status << 8;
        } else {
            CHECK(waitpid(pid, &status, 0) == pid);
        }
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == round);
        while (ends <= round)
            usleep(100);
        CHECK(ends == round + 1);
        close(ready[0]);
        close(ready[1]);
        say("round %d: it has ended", round);
    }
    say("ok");
    return 0;
}
