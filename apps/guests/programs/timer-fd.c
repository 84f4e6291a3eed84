int main(void)
{
    int once = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    int many = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    CHECK(once >= 0 && many >= 0);
    uint64_t ticks;
    struct itimerspec left;
    CHECK(read(many, &ticks, 8) == -1 && errno == EAGAIN);
    struct itimerspec beat = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    CHECK(timerfd_settime(many, 0, &beat, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        struct itimerspec spec = {.it_value.tv_nsec = 3000000};
        CHECK(timerfd_settime(once, 0, &spec, NULL) == 0);
        say("round %d set", r);
        CHECK(read(once, &ticks, 8) == 8 && ticks == 1);
        say("round %d expired", r);
        CHECK(timerfd_gettime(once, &left) == 0 && !left.it_value.tv_sec && !left.it_value.tv_nsec);
        struct pollfd p = {.fd = many, .events = POLLIN};
        CHECK(poll(&p, 1, 5000) == 1 && p.revents == POLLIN);
        CHECK(read(many, &ticks, 8) == 8 && ticks >= 1);
        say("round %d beats", r);
        CHECK(timerfd_gettime(many, &left) == 0 && left.it_interval.tv_nsec == 1000000);
    }
    say("ok");
    return 0;
}
