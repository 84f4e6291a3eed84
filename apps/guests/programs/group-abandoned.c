/* A stopped group whose last supervisor ends: its processes get SIGHUP and SIGCONT, in a session of the program's own. */
#include <sys/wait.h>

static volatile sig_atomic_t hung_up, continued;

static void note(int signo)
{
    *(signo == SIGHUP ? &hung_up : &continued) = 1;
}

static pid_t spawned(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

int main(void)
{
    int status, ends[2];
    pid_t stopped[2];
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    for (int r = 1; r <= 12; r++) {
        CHECK(pipe(ends) == 0);
        pid_t leader = spawned();
        if (leader == 0) {
            CHECK(setsid() == getpid());
            for (int i = 0; i < 2; i++) {
                stopped[i] = spawned();
                if (stopped[i] == 0) {
                    setpgid(0, i ? stopped[0] : 0);
                    if (i) {
                        signal(SIGHUP, note), signal(SIGCONT, note);
                        raise(SIGSTOP);
                        say("%d: hung up %d, continued %d, orphan %d", r, hung_up, continued, getppid() != leader);
                        _exit(3);
                    }
                    raise(SIGSTOP);
                    say("%d: survived", r);
                    _exit(4);
                }
                setpgid(stopped[i], stopped[0]);
                CHECK(waitpid(stopped[i], &status, WUNTRACED) == stopped[i] && WIFSTOPPED(status));
            }
            CHECK(write(ends[1], stopped, sizeof stopped) == sizeof stopped);
            _exit(5);
        }
        CHECK(read(ends[0], stopped, sizeof stopped) == sizeof stopped);
        CHECK(waitpid(leader, &status, 0) == leader && WEXITSTATUS(status) == 5);
        CHECK(waitpid(stopped[1], &status, 0) == stopped[1] && WIFEXITED(status) && WEXITSTATUS(status) == 3);
        CHECK(waitpid(stopped[0], &status, 0) == stopped[0] && WIFSIGNALED(status));
        say("%d: ended by %d", r, WTERMSIG(status));
        close(ends[0]), close(ends[1]);
    }
    say("ok");
    return 0;
}
