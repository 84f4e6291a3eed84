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

int main(void)
{
    struct sigaction act = {.sa_handler = plain}, old;
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0 && sigaction(SIGUSR2, &act, NULL) == 0);
    struct sigaction info = {.sa_sigaction = informed, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGRTMIN + 1, &info, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        count = 0;
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
