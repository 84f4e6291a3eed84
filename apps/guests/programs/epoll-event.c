int main(void)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), ends[2];
    int plain = eventfd(0, EFD_NONBLOCK), sem = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    CHECK(ep >= 0 && plain >= 0 && sem >= 0 && pipe2(ends, O_NONBLOCK) == 0);
    struct epoll_event level = {.events = EPOLLIN, .data.u64 = 0x1111222233334444},
                       edge = {.events = EPOLLIN | EPOLLET, .data.u64 = 2},
                       once = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3}, got[4];
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, plain, &level) == 0);
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &edge) == 0);
    CHECK(epoll_wait(ep, got, 4, 0) == 0);
    uint64_t value;
    char bytes[64];
    for (int r = 1; r <= ROUNDS; r++) {
        value = r;
        CHECK(write(plain, &value, 8) == 8 && write(plain, &value, 8) == 8);
        say("round %d rung", r);
        CHECK(epoll_wait(ep, got, 4, 1000) == 1 && got[0].data.u64 == level.data.u64);
        CHECK(epoll_wait(ep, got, 4, 0) == 1);
        CHECK(read(plain, &value, 8) == 8 && value == 2ull * r);
        CHECK(epoll_wait(ep, got, 4, 0) == 0);
        say("round %d read %llu", r, (unsigned long long)value);
        CHECK(write(ends[1], "abc", 3) == 3);
        CHECK(epoll_wait(ep, got, 4, 1000) == 1 && got[0].data.u64 == 2);
        CHECK(epoll_wait(ep, got, 4, 0) == 0);
        CHECK(read(ends[0], bytes, sizeof bytes) == 3);
        say("round %d edge", r);
        CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, sem, &once) == 0);
        CHECK(epoll_wait(ep, got, 4, 1000) == 1 && got[0].data.u64 == 3);
        CHECK(epoll_wait(ep, got, 4, 0) == 0);
        CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, sem, &once) == 0);
        CHECK(epoll_wait(ep, got, 4, 1000) == 1);
        CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, sem, NULL) == 0);
        CHECK(read(sem, &value, 8) == 8 && value == 1);
        value = 1;
        CHECK(write(sem, &value, 8) == 8);
        say("round %d once", r);
    }
    say("ok");
    return 0;
}
