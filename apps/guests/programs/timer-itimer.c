static volatile sig_atomic_t ticks;
static void tick(int sig) { (void)sig; ticks++; }

int main(void)
{
    struct sigaction act = {.sa_handler = tick};
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    sigset_t alarm, old;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    CHECK(sigprocmask(SIG_BLOCK, &alarm, &old) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        struct itimerval one = {.it_value.tv_usec = 3000}, left;
        ticks = 0;
        CHECK(setitimer(ITIMER_REAL, &one, NULL) == 0);
        while (!ticks)
            sigsuspend(&old);
        CHECK(getitimer(ITIMER_REAL, &left) == 0 && !left.it_value.tv_sec && !left.it_value.tv_usec);
        say("round %d rang once", r);
        struct itimerval many = {.it_value.tv_usec = 1000, .it_interval.tv_usec = 1000}, none = {0};
        CHECK(setitimer(ITIMER_REAL, &many, NULL) == 0);
        while (ticks < 4)
            sigsuspend(&old);
        CHECK(setitimer(ITIMER_REAL, &none, &left) == 0 && left.it_interval.tv_usec == 1000);
        /* A last ring may be pending still, and is not to be taken for the next one's. */
        struct timespec zero = {0};
        while (sigtimedwait(&alarm, NULL, &zero) > 0)
            ;
        say("round %d rang on", r);
        struct itimerval far = {.it_value.tv_sec = 1000};
        CHECK(setitimer(ITIMER_REAL, &far, NULL) == 0);
        say("round %d far", r);
        CHECK(getitimer(ITIMER_REAL, &left) == 0 && left.it_value.tv_sec >= 900);
        CHECK(setitimer(ITIMER_REAL, &none, NULL) == 0);
    }
    say("ok");
    return 0;
}
