/* Parents that end before their children: who adopts those, and the signal that they asked for (prctl(2)). */
#include <sys/wait.h>

static volatile sig_atomic_t came, code;
static volatile pid_t sender;

static void note(int number, siginfo_t *info, void *context)
{
    (void)context;
    came = number;
    code = info->si_code;
    sender = info->si_pid;
}

static void told_by(int to, char what)
{
    CHECK(write(to, &what, 1) == 1);
}

static char heard(int from)
{
    char what = 0;
    ssize_t n;
    while ((n = read(from, &what, 1)) < 0 && errno == EINTR)
        ;
    return n == 1 ? what : 0;
}

static pid_t spawned(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

static int death_signal(void)
{
    int signal = -1;
    CHECK(prctl(PR_GET_PDEATHSIG, &signal) == 0);
    return signal;
}

/* A parent that ends `how`, and its child, which asks for `wanted`; the child's status, as whoever adopts it sees it. */
static int bereave(int wanted, char how)
{
    int up[2], down[2], status;
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    pid_t parent = spawned();
    if (parent == 0) {
        if (spawned() == 0) {
            sigset_t blocked, before;
            sigemptyset(&blocked);
            sigaddset(&blocked, SIGUSR1);
            CHECK(sigprocmask(SIG_BLOCK, &blocked, &before) == 0);
            CHECK(prctl(PR_SET_PDEATHSIG, wanted) == 0 && death_signal() == wanted);
            pid_t first = getppid();
            told_by(up[1], 'r');
            if (wanted == SIGUSR1) {
                while (!came)
                    sigsuspend(&before);
                CHECK(came == SIGUSR1 && code == SI_USER && sender == first);
            } else if (wanted == 0) {
                while (getppid() == first)
                    usleep(1000);
                CHECK(!came);
            } else {
                for (;;)
                    pause();
            }
            CHECK(getppid() != first);
            _exit(33);
        }
        close(up[1]);
        CHECK(heard(down[0]) == 'e');
        if (how == 'e')
            _exit(5);
        kill(getpid(), how == 'k' ? SIGKILL : SIGTERM);
        pause();
    }
    close(up[1]);
    CHECK(heard(up[0]) == 'r');
    if (how == 'o') {
        CHECK(kill(parent, SIGKILL) == 0);
    } else {
        told_by(down[1], 'e');
    }
    CHECK(waitpid(parent, &status, 0) == parent);
    close(up[0]), close(down[0]), close(down[1]);
    pid_t child = wait(&status);
    CHECK(child > 0 && child != parent);
    CHECK(wait(NULL) == -1 && errno == ECHILD);
    return status;
}

static int thread_up[2], thread_down[2];

static void *fork_and_end(void *nothing)
{
    if (spawned() == 0) {
        sigset_t blocked, before;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGUSR1);
        sigprocmask(SIG_BLOCK, &blocked, &before);
        CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
        told_by(thread_up[1], 'r');
        while (!came)
            sigsuspend(&before);
        _exit(44);
    }
    CHECK(heard(thread_down[0]) == 'e');
    return nothing;
}

/* To a child the end of the thread that made it is the end of its parent. */
static int thread_that_ends(void)
{
    int status;
    pthread_t thread;
    CHECK(pipe(thread_up) == 0 && pipe(thread_down) == 0);
    CHECK(pthread_create(&thread, NULL, fork_and_end, NULL) == 0);
    CHECK(heard(thread_up[0]) == 'r');
    told_by(thread_down[1], 'e');
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(wait(&status) > 0);
    for (int i = 0; i < 2; i++)
        close(thread_up[i]), close(thread_down[i]);
    return status;
}

/* What a fork forgets, and what an exec keeps. */
static void inheritance(void)
{
    int status;
    pid_t child = spawned();
    if (child == 0) {
        int adopts = -1;
        CHECK(prctl(PR_GET_CHILD_SUBREAPER, &adopts) == 0 && adopts == 0);
        CHECK(death_signal() == 0);
        CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
        if (spawned() == 0)
            _exit(death_signal());
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        execl("/proc/self/exe", "orphans", "asks", NULL);
        _exit(9);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == SIGUSR2);
    CHECK(prctl(PR_SET_PDEATHSIG, 65) == -1 && errno == EINVAL);
}

/* A chain of three that want to be killed with their parents. */
static void chain(void)
{
    int up[2], status;
    CHECK(pipe(up) == 0);
    pid_t first = spawned();
    if (first == 0) {
        for (int i = 0; i < 3; i++) {
            if (spawned() != 0)
                break;
            CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
            told_by(up[1], 'r');
        }
        for (;;)
            pause();
    }
    for (int i = 0; i < 3; i++)
        CHECK(heard(up[0]) == 'r');
    CHECK(kill(first, SIGTERM) == 0);
    int killed = 0;
    for (int i = 0; i < 4; i++) {
        pid_t child = wait(&status);
        CHECK(child > 0 && WIFSIGNALED(status));
        CHECK(WTERMSIG(status) == (child == first ? SIGTERM : SIGKILL));
        killed++;
    }
    CHECK(killed == 4);
    close(up[0]), close(up[1]);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "asks"))
        return death_signal();
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    for (int r = 1; r <= 6; r++) {
        inheritance();
        say("%d: inherited", r);
        int exited = bereave(SIGUSR1, 'e'), killed = bereave(SIGUSR1, 'k');
        int by_other = bereave(SIGUSR1, 'o'), by_signal = bereave(SIGUSR1, 't');
        say("%d: told: %x %x %x %x", r, exited, killed, by_other, by_signal);
        say("%d: not asked: %x %x", r, bereave(0, 'e'), bereave(0, 'o'));
        say("%d: killed with it: %x %x", r, bereave(SIGKILL, 'e'), bereave(SIGKILL, 'o'));
        say("%d: ended with it: %x", r, bereave(SIGTERM, 'e'));
        say("%d: thread: %x", r, thread_that_ends());
        chain();
        say("%d: chain", r);
    }
    say("ok");
    return 0;
}
