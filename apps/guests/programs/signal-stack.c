static char stack[65536];
static volatile sig_atomic_t inside, flags;
static void handler(int sig)
{
    char here;
    stack_t now;
    (void)sig;
    inside = &here >= stack && &here < stack + sizeof stack;
    CHECK(sigaltstack(NULL, &now) == 0);
    flags = now.ss_flags;
    say("in the handler");
}

int main(void)
{
    stack_t mine = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    CHECK(sigaltstack(&mine, NULL) == 0);
    struct sigaction there = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    struct sigaction here = {.sa_handler = handler};
    CHECK(sigaction(SIGUSR1, &there, NULL) == 0 && sigaction(SIGUSR2, &here, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        raise(SIGUSR1);
        CHECK(inside && flags == SS_ONSTACK);
        say("round %d on its stack", r);
        raise(SIGUSR2);
        CHECK(!inside && flags == 0);
        CHECK(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack && now.ss_size == sizeof stack);
        say("round %d on ours", r);
    }
    say("ok");
    return 0;
}
