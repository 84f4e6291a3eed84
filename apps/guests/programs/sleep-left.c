static volatile sig_atomic_t ticks;
static void tick(int sig) { (void)sig; ticks++; }

int main(void)
{
    struct sigaction act = {.sa_handler = tick};
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        int64_t start = now_us();
        struct itimerval one = {.it_value.tv_usec = 2000};
        struct timespec want = {.tv_nsec = 12000000}, left = {0};
        ticks = 0;
        CHECK(setitimer(ITIMER_REAL, &one, NULL) == 0);
        int interrupted = 0;
        while (nanosleep(&want, &left) == -1) {
            CHECK(errno == EINTR);
            /* The kernel counts its slack of 50 us as left. */
            CHECK(left.tv_sec == 0 && left.tv_nsec <= want.tv_nsec + 50000);
            want = left;
            interrupted++;
        }
        /* A slow machine may ring before the sleep begins. */
        CHECK(interrupted <= 1 && ticks == 1);
        CHECK(now_us() - start >= 11900);
        say("round %d slept", r);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 2000000;
        if (until.tv_nsec >= 1000000000)
            until.tv_sec++, until.tv_nsec -= 1000000000;
        CHECK(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == 0);
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        CHECK(now.tv_sec > until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec));
        say("round %d waited", r);
    }
    say("ok");
    return 0;
}
