/*
 * Sockets and ends of pipes that were open for long, used and then closed, and a while in which nothing is seen: whoever
 * comes back to before the close uses them once more.
 */
#include <netinet/in.h>
#include <sys/socket.h>

static void tcp(int ends[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(ends[0] >= 0 && connect(ends[0], (struct sockaddr *)&at, sizeof at) == 0);
    ends[1] = accept(listener, NULL, NULL);
    CHECK(ends[1] >= 0 && close(listener) == 0);
}

/* What is done with it re-executes without any chance, so nothing commits but the close. */
static void use_and_close(int set, int fd, int of)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    CHECK(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) == 0);
    int size, type;
    socklen_t len = sizeof type;
    if (of != 0) {
        CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0);
        size = 1 << 14;
        CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    }
    CHECK(fcntl(fd, F_GETFL) >= 0);
    CHECK(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0);
    CHECK(close(fd) == 0);
    compute(400);
    CHECK(close(fd) == -1 && errno == EBADF);
    compute(400);
}

int main(void)
{
    static const char *names[] = {"pipe", "pair", "tcp", "udp"};
    for (int round = 1; round <= 8; round++)
        for (int of = 0; of < 4; of++) {
            int set = epoll_create1(0), ends[2];
            CHECK(set >= 0);
            if (of == 0)
                CHECK(pipe(ends) == 0);
            if (of == 1)
                CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
            if (of == 2)
                tcp(ends);
            if (of == 3)
                CHECK((ends[0] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && (ends[1] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
            struct epoll_event event = {.events = EPOLLIN};
            for (int i = 0; i < 2; i++)
                CHECK(epoll_ctl(set, EPOLL_CTL_ADD, ends[i], &event) == 0);
            say("%d %s made", round, names[of]);
            getppid();
            use_and_close(set, ends[0], of);
            say("%d %s: one closed", round, names[of]);
            use_and_close(set, ends[1], of);
            say("%d %s: both closed", round, names[of]);
            close(set);
        }
    say("ok");
    return 0;
}
