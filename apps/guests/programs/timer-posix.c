static volatile sig_atomic_t ticks, value;
static void tick(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    ticks++;
    value = info->si_value.sival_int;
    if (info->si_code != SI_TIMER)
        _exit(3);
}

int main(void)
{
    struct sigaction act = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGRTMIN + 3, &act, NULL) == 0);
    sigset_t mine, old;
    sigemptyset(&mine);
    sigaddset(&mine, SIGRTMIN + 3);
    CHECK(sigprocmask(SIG_BLOCK, &mine, &old) == 0);
    timer_t far, first = NULL;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3};
    struct itimerspec spec = {.it_value.tv_sec = 5000}, left;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &far) == 0);
    CHECK(timer_settime(far, 0, &spec, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        timer_t timer;
        event.sigev_value.sival_int = 100 + r;
        CHECK(timer_create(CLOCK_REALTIME, &event, &timer) == 0);
        if (r == 1)
            first = timer;
        CHECK(timer != far);
        ticks = 0;
        spec = (struct itimerspec){.it_value.tv_nsec = 2000000, .it_interval.tv_nsec = 1000000};
        CHECK(timer_settime(timer, 0, &spec, NULL) == 0);
        say("round %d set", r);
        while (ticks < 3)
            sigsuspend(&old);
        CHECK(value == 100 + r);
        say("round %d value %d", r, (int)value);
        if (timer != first)
            CHECK(timer_delete(timer) == 0);
        else
            CHECK(timer_settime(timer, 0, &(struct itimerspec){0}, NULL) == 0);
        /* What was pending when the timer stopped must not be taken for the next one's. */
        struct timespec zero = {0};
        while (sigtimedwait(&mine, NULL, &zero) > 0)
            ;
        CHECK(timer_gettime(far, &left) == 0 && left.it_value.tv_sec > 4000);
        say("round %d far still runs", r);
    }
    CHECK(timer_delete(first) == 0 && timer_delete(far) == 0);
    say("ok");
    return 0;
}
