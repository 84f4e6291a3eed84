int main(void)
{
    int ends[2], queued;
    char got[256];
    CHECK(pipe2(ends, O_NONBLOCK) == 0);
    int written = 0, taken = 0;
    for (int r = 1; r <= ROUNDS * 3; r++) {
        char line[32];
        int len = sprintf(line, "message %d;", r);
        CHECK(write(ends[1], line, len) == len);
        written += len;
        say("round %d put", r);
        if (r % 3 == 0) {
            ssize_t count = read(ends[0], got, 20 + r % 7);
            CHECK(count > 0);
            taken += count;
            say("round %d took %.*s", r, (int)count, got);
        }
        CHECK(ioctl(ends[0], FIONREAD, &queued) == 0 && queued == written - taken);
    }
    for (ssize_t count; (count = read(ends[0], got, sizeof got)) > 0;)
        say("rest %.*s", (int)count, got);
    CHECK(errno == EAGAIN);
    CHECK(close(ends[1]) == 0 && read(ends[0], got, 1) == 0);
    signal(SIGPIPE, SIG_IGN);
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && write(ends[1], "x", 1) == -1 && errno == EPIPE);
    say("ok");
    return 0;
}
