/* Children that stop, go on and end, as wait4(2) and waitid(2) tell of them; process groups, and who may be moved into
 * which. */
#include <sys/wait.h>

static volatile sig_atomic_t told;

static void note(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    told = told * 10 + info->si_code;
}

static pid_t spawned(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

/* Children that stop themselves, are continued, and exit, as waitpid08 and waitpid13 of the LTP have them. */
static void stopped_by_themselves(pid_t whom, int options, int groups)
{
    enum { KIDS = 6 };
    pid_t kids[KIDS];
    int status, stops = 0, ends = 0;
    for (int i = 0; i < KIDS; i++) {
        kids[i] = spawned();
        if (kids[i] == 0) {
            if (groups)
                CHECK(setpgid(0, 0) == 0 || errno == EACCES);
            kill(getpid(), SIGSTOP);
            _exit(3);
        }
        if (groups)
            CHECK(setpgid(kids[i], kids[i]) == 0);
    }
    for (;;) {
        pid_t pid = waitpid(whom, &status, options);
        if (pid == 0) {
            usleep(500);
            continue;
        }
        if (pid < 0) {
            CHECK(errno == ECHILD);
            break;
        }
        int known = 0;
        for (int i = 0; i < KIDS; i++)
            known |= kids[i] == pid;
        CHECK(known);
        if (WIFSTOPPED(status)) {
            CHECK(WSTOPSIG(status) == SIGSTOP);
            stops++;
            CHECK(kill(pid, SIGCONT) == 0);
        } else {
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
            ends++;
        }
    }
    CHECK(stops == KIDS && ends == KIDS);
}

/* Each change is told once, in its order, and WNOWAIT leaves it. */
static void changes(void)
{
    siginfo_t info;
    int status;
    pid_t child = spawned();
    if (child == 0)
        for (;;)
            pause();
    for (int i = 0; i < 3; i++) {
        CHECK(kill(child, SIGSTOP) == 0);
        memset(&info, 0, sizeof info);
        CHECK(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT) == 0);
        CHECK(info.si_pid == child && info.si_code == CLD_STOPPED);
        CHECK(info.si_status == (SIGSTOP) && info.si_signo == SIGCHLD);
        CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
        CHECK(waitpid(child, &status, WUNTRACED | WNOHANG) == 0);
        CHECK(kill(child, SIGCONT) == 0);
        if (i == 2) {
            CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
        } else {
            memset(&info, 0, sizeof info);
            CHECK(waitid(P_ALL, 0, &info, WCONTINUED) == 0);
            CHECK(info.si_pid == child && info.si_code == CLD_CONTINUED && info.si_status == SIGCONT);
        }
        memset(&info, 1, sizeof info);
        CHECK(waitid(P_PID, child, &info, WCONTINUED | WSTOPPED | WEXITED | WNOHANG) == 0);
        CHECK(info.si_pid == 0 && info.si_signo == 0);
    }
    /* Stopped, and killed while it is: the stop is not told any more. */
    CHECK(kill(child, SIGSTOP) == 0);
    CHECK(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSIGNALED(status));
    CHECK(waitpid(child, &status, 0) == -1 && errno == ECHILD);
}

/* SIGCHLD for stops and continues, and none with SA_NOCLDSTOP. */
static void signals(void)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO}, before;
    int status;
    for (int quiet = 0; quiet < 2; quiet++) {
        sigset_t blocked, mask;
        sigemptyset(&blocked), sigaddset(&blocked, SIGCHLD);
        CHECK(sigprocmask(SIG_BLOCK, &blocked, &mask) == 0);
        action.sa_flags = SA_SIGINFO | (quiet ? SA_NOCLDSTOP : 0);
        told = 0;
        CHECK(sigaction(SIGCHLD, &action, &before) == 0);
        pid_t child = spawned();
        if (child == 0)
            for (;;)
                pause();
        CHECK(kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child);
        if (!quiet)
            while (told != CLD_STOPPED)
                sigsuspend(&mask);
        CHECK(kill(child, SIGCONT) == 0 && waitpid(child, &status, WCONTINUED) == child);
        if (!quiet)
            while (told != CLD_STOPPED * 10 + CLD_CONTINUED)
                sigsuspend(&mask);
        CHECK(kill(child, SIGTERM) == 0);
        int all = quiet ? CLD_KILLED : (CLD_STOPPED * 10 + CLD_CONTINUED) * 10 + CLD_KILLED;
        while (told != all)
            sigsuspend(&mask);
        CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGTERM);
        CHECK(sigaction(SIGCHLD, &before, NULL) == 0 && sigprocmask(SIG_SETMASK, &mask, NULL) == 0);
    }
}

static char heard(int from)
{
    char what = 0;
    while (read(from, &what, 1) < 0 && errno == EINTR)
        ;
    return what;
}

/* Who may not be moved, and where to (setpgid(2)). */
static void groups(void)
{
    int up[2], status;
    char what = 'r';
    CHECK(pipe(up) == 0);
    CHECK(setpgid(0, -1) == -1 && errno == EINVAL);
    CHECK(setpgid(1, 0) == -1 && errno == ESRCH);
    pid_t child = spawned();
    if (child == 0) {
        execl("/proc/self/exe", "waits", "sleeps", NULL);
        _exit(9);
    }
    /* When it has executed another program it is no longer its parent's to move. */
    for (;;) {
        char path[64], name[32] = "";
        snprintf(path, sizeof path, "/proc/%d/cmdline", child);
        int fd = open(path, O_RDONLY);
        CHECK(fd >= 0 && read(fd, name, sizeof name - 1) >= 0);
        close(fd);
        if (!strcmp(name, "waits"))
            break;
        usleep(1000);
    }
    CHECK(setpgid(child, child) == -1 && errno == EACCES);
    CHECK(setpgid(child, getpgrp()) == -1 && errno == EACCES);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    /* A leader of a session, and one in another session. */
    child = spawned();
    if (child == 0) {
        CHECK(setsid() == getpid() && getsid(0) == getpid() && getpgrp() == getpid());
        CHECK(setsid() == -1 && errno == EPERM);
        CHECK(setpgid(0, 0) == -1 && errno == EPERM);
        if (spawned() == 0) {
            CHECK(getsid(0) == getppid() && getpgrp() == getppid());
            CHECK(setpgid(0, 0) == 0 && getpgrp() == getpid());
            _exit(7);
        }
        CHECK(wait(&status) > 0 && WEXITSTATUS(status) == 7);
        CHECK(write(up[1], &what, 1) == 1);
        for (;;)
            pause();
    }
    CHECK(heard(up[0]) == 'r');
    CHECK(getsid(child) == child && getpgid(child) == child);
    CHECK(setpgid(child, child) == -1 && errno == EPERM);
    CHECK(setpgid(child, getpgrp()) == -1 && errno == EPERM);
    CHECK(setpgid(0, child) == -1 && errno == EPERM);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    /* Groups of children: moved, joined, waited for, killed. */
    pid_t first = spawned();
    if (first == 0)
        for (;;)
            pause();
    CHECK(setpgid(first, first) == 0 && getpgid(first) == first);
    pid_t second = spawned();
    if (second == 0)
        for (;;)
            pause();
    CHECK(setpgid(second, first) == 0 && getpgid(second) == first);
    CHECK(setpgid(second, 1 << 30) == -1 && (errno == EPERM || errno == ESRCH));
    CHECK(waitpid(-first, &status, WNOHANG) == 0);
    CHECK(kill(-first, 0) == 0 && killpg(first, SIGTERM) == 0);
    int ended = 0;
    while (waitpid(-first, &status, 0) > 0) {
        CHECK(WTERMSIG(status) == SIGTERM);
        ended++;
    }
    CHECK(ended == 2 && errno == ECHILD);
    CHECK(kill(-first, 0) == -1 && errno == ESRCH);
    close(up[0]), close(up[1]);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "sleeps"))
        for (;;)
            pause();
    (void)argv;
    for (int r = 1; r <= 5; r++) {
        stopped_by_themselves(-1, WUNTRACED, 0);
        say("%d: stopped, any", r);
        stopped_by_themselves(0, WUNTRACED, 0);
        say("%d: stopped, of the group", r);
        stopped_by_themselves(-1, WUNTRACED | WNOHANG, 1);
        say("%d: stopped, in groups", r);
        changes();
        say("%d: changes", r);
        signals();
        say("%d: signals", r);
        groups();
        say("%d: groups", r);
    }
    say("ok");
    return 0;
}
