static int ends[2];
static volatile sig_atomic_t rings;
static void ring(int sig)
{
    (void)sig;
    if (++rings == 2 && write(ends[1], "!", 1) != 1)
        _exit(4);
}

int main(void)
{
    CHECK(pipe(ends) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        char byte = 0;
        struct itimerval beat = {.it_value.tv_usec = 1500, .it_interval.tv_usec = 1500}, none = {0};
        struct sigaction act = {.sa_handler = ring, .sa_flags = SA_RESTART};
        CHECK(sigaction(SIGALRM, &act, NULL) == 0);
        rings = 0;
        CHECK(setitimer(ITIMER_REAL, &beat, NULL) == 0);
        CHECK(read(ends[0], &byte, 1) == 1 && byte == '!' && rings >= 2);
        CHECK(setitimer(ITIMER_REAL, &none, NULL) == 0);
        say("round %d restarted", r);
        act.sa_flags = 0;
        CHECK(sigaction(SIGALRM, &act, NULL) == 0);
        rings = 10;
        CHECK(setitimer(ITIMER_REAL, &beat, NULL) == 0);
        CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR);
        struct pollfd p = {.fd = ends[0], .events = POLLIN};
        CHECK(poll(&p, 1, 10000) == -1 && errno == EINTR);
        CHECK(setitimer(ITIMER_REAL, &none, NULL) == 0);
        say("round %d interrupted", r);
    }
    say("ok");
    return 0;
}
