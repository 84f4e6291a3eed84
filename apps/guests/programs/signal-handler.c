static volatile sig_atomic_t depth, deepest, count, last_value, last_code;
static void plain(int sig)
{
    depth++;
    if (depth > deepest)
        deepest = depth;
    count++;
    if (sig == SIGUSR1)
        raise(SIGUSR2);
    depth--;
}
static void informed(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    last_value = info->si_value.sival_int;
    last_code = info->si_code;
    CHECK(info->si_pid == getpid());
    say("in the handler with %d", (int)last_value);
}

/* A call that ends with EFAULT when a signal breaks it off, is made once, and what the handler came behind goes on. */
static void sleep_badly(int r)
{
    static char *nowhere;
    if (!nowhere) {
        nowhere = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int fd = open("noted", O_RDWR | O_CREAT | O_TRUNC, 0600);
        CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
        char *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(nowhere != MAP_FAILED && shared != MAP_FAILED && close(fd) == 0 && unlink("noted") == 0);
    }
    struct itimerval soon = {.it_value = {.tv_usec = 3000}};
    struct timespec long_time = {.tv_sec = 5};
    int64_t begun = now_us();
    count = 0;
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    long how = syscall(r % 2 ? SYS_nanosleep : SYS_clock_nanosleep, r % 2 ? (long)&long_time : CLOCK_MONOTONIC,
                       r % 2 ? nowhere : 0, &long_time, nowhere);
    CHECK(how == -1 && errno == EFAULT && count == 1 && now_us() - begun < 4000000);
    say("round %d slept, and was not told what is left", r);
}

int main(void)
{
    struct sigaction act = {.sa_handler = plain}, old;
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0 && sigaction(SIGUSR2, &act, NULL) == 0);
    struct sigaction info = {.sa_sigaction = informed, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGRTMIN + 1, &info, NULL) == 0);
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        if (r % 5 == 0)
            sleep_badly(r);
        deepest = count = 0;
        CHECK(kill(getpid(), SIGUSR1) == 0);
        CHECK(count == 2 && deepest == 2);
        say("round %d nested", r);
        CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = r * 11}) == 0);
        CHECK(last_value == r * 11 && last_code == SI_QUEUE);
        say("round %d queued", r);
        struct sigaction once = {.sa_handler = plain, .sa_flags = SA_RESETHAND};
        CHECK(sigaction(SIGHUP, &once, NULL) == 0 && raise(SIGHUP) == 0);
        CHECK(sigaction(SIGHUP, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
        CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == plain);
        CHECK(signal(SIGTERM, SIG_IGN) != SIG_ERR && raise(SIGTERM) == 0);
        say("round %d reset", r);
    }
    say("ok");
    return 0;
}
