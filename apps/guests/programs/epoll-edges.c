/* Lines from outside, told by edges and by single shots only: one that is lost is a hang, one that comes twice is not. */
#define LINES 16
int main(void)
{
    int set = epoll_create1(0), waiting, lines = 0;
    CHECK(set >= 0 && fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) == 0);
    struct epoll_event event = {EPOLLIN | EPOLLET, {.fd = 0}};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, 0, &event) == 0);
    say("ready");
    while (lines < LINES) {
        int n = epoll_wait(set, &event, 1, -1);
        if (n < 0 && errno == EINTR)
            continue;
        CHECK(n == 1 && ioctl(0, FIONREAD, &waiting) == 0);
        char bytes[64];
        ssize_t len = 0;
        if (waiting > 0) {
            /* Seen outside, and so committed, before the line is read. */
            say("sees line %d", lines + 1);
            CHECK((len = read(0, bytes, sizeof bytes)) > 0 && bytes[len - 1] == '\n');
            CHECK(read(0, bytes + len, 1) == -1 && errno == EAGAIN);
            lines++;
        }
        event.events = EPOLLIN | (lines % 2 ? EPOLLONESHOT : EPOLLET);
        event.data.fd = 0;
        CHECK(epoll_ctl(set, EPOLL_CTL_MOD, 0, &event) == 0);
        if (waiting > 0)
            say("line %d: %.*s", lines, (int)len - 1, bytes);
    }
    say("ok");
    return 0;
}
