static volatile sig_atomic_t order[8], count;
static void note(int sig) { if (count < 8) order[count++] = sig; }

int main(void)
{
    struct sigaction act = {.sa_handler = note};
    sigset_t set, old, pending;
    sigemptyset(&set);
    for (int sig = SIGRTMIN + 1; sig <= SIGRTMIN + 3; sig++) {
        CHECK(sigaction(sig, &act, NULL) == 0);
        sigaddset(&set, sig);
    }
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
    sigaddset(&set, SIGUSR1);
    for (int r = 1; r <= ROUNDS; r++) {
        count = 0;
        CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
        raise(SIGUSR1), raise(SIGUSR1);
        kill(getpid(), SIGRTMIN + 2), kill(getpid(), SIGRTMIN + 1), kill(getpid(), SIGRTMIN + 2);
        say("round %d blocked", r);
        CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
        CHECK(sigismember(&pending, SIGRTMIN + 1) && !sigismember(&pending, SIGRTMIN + 3));
        CHECK(count == 0);
        siginfo_t info;
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, SIGRTMIN + 1);
        CHECK(sigwaitinfo(&one, &info) == SIGRTMIN + 1);
        say("round %d waited", r);
        CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
        /* A standard signal pends once, a real-time signal as often as it was sent. */
        CHECK(count == 3);
        int usr1 = 0, rt = 0;
        for (int i = 0; i < count; i++)
            usr1 += order[i] == SIGUSR1, rt += order[i] == SIGRTMIN + 2;
        CHECK(usr1 == 1 && rt == 2);
        say("round %d delivered", r);
        sigset_t now;
        CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && !sigismember(&now, SIGUSR1));
        sigaddset(&one, SIGUSR1);
        struct timespec soon = {.tv_nsec = 1000000};
        CHECK(sigprocmask(SIG_BLOCK, &one, NULL) == 0);
        CHECK(sigtimedwait(&one, NULL, &soon) == -1 && errno == EAGAIN);
        CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
    }
    say("ok");
    return 0;
}
