#include <sys/socket.h>
/* A worker that waits for edges and single shots only; each is answered, so one that is lost is a hang. */
static int set, sides[2], back[2], counter;
static void *answers(void *unused)
{
    (void)unused;
    for (int got = 0; got < ROUNDS * 4;) {
        struct epoll_event events[4];
        int n = epoll_wait(set, events, 4, -1);
        if (n < 0 && errno == EINTR)
            continue;
        CHECK(n > 0);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            char bytes[16];
            ssize_t len;
            uint64_t one;
            if (fd == counter) {
                while (read(counter, &one, 8) == 8)
                    ;
                struct epoll_event again = {EPOLLIN | EPOLLONESHOT, {.fd = counter}};
                CHECK(epoll_ctl(set, EPOLL_CTL_MOD, counter, &again) == 0);
                continue;
            }
            while ((len = read(fd, bytes, sizeof bytes)) > 0) {
                got += len;
                CHECK(write(back[1], bytes, len) == len);
            }
            CHECK(len == -1 && errno == EAGAIN);
        }
    }
    return NULL;
}
int main(void)
{
    CHECK((set = epoll_create1(0)) >= 0 && pipe2(sides, O_NONBLOCK) == 0 && pipe(back) == 0);
    CHECK((counter = eventfd(0, EFD_NONBLOCK)) >= 0);
    struct epoll_event in = {EPOLLIN | EPOLLET, {.fd = sides[0]}};
    struct epoll_event once = {EPOLLIN | EPOLLONESHOT, {.fd = counter}};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, sides[0], &in) == 0);
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, counter, &once) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answers, NULL) == 0);
    for (int r = 1; r <= ROUNDS * 4; r++) {
        char byte = 'a' + r % 26, answer = 0;
        uint64_t one = 1;
        CHECK(write(counter, &one, 8) == 8);
        CHECK(write(sides[1], &byte, 1) == 1);
        CHECK(read(back[0], &answer, 1) == 1 && answer == byte);
        say("round %d", r);
        compute(3);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    say("ok");
    return 0;
}
