/* A stream in all the ways to send and receive: nothing may be lost, doubled or out of order; a peer that is gone answers
 * EPIPE, with SIGPIPE or without as the call says. */
#include <sys/socket.h>
#include <sys/uio.h>

static int ends[2];
static uint64_t sent, received;
static volatile int pipes;

static void on_pipe(int signal)
{
    (void)signal;
    pipes++;
}

static void fill(char *bytes, int len)
{
    for (int i = 0; i < len; i++)
        bytes[i] = (char)mix(sent + i);
}
static void check(const char *bytes, ssize_t len)
{
    CHECK(len > 0);
    for (ssize_t i = 0; i < len; i++)
        CHECK(bytes[i] == (char)mix(received + i));
    received += len;
}

static void send_some(int way)
{
    char bytes[700];
    int len = 100 + way * 37 % 600;
    fill(bytes, len);
    struct iovec parts[2] = {{bytes, len / 3}, {bytes + len / 3, len - len / 3}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t count = -1;
    switch (way % 7) {
    case 0: count = write(ends[0], bytes, len); break;
    case 1: count = send(ends[0], bytes, len, 0); break;
    case 2: count = send(ends[0], bytes, len, MSG_NOSIGNAL); break;
    case 3: count = send(ends[0], bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT); break;
    case 4: count = sendmsg(ends[0], &header, MSG_NOSIGNAL); break;
    case 5: count = writev(ends[0], parts, 2); break;
    case 6: count = pwritev2(ends[0], parts, 2, -1, 0); break;
    }
    CHECK(count == len);
    sent += len;
}

static void receive_some(int way)
{
    char bytes[600];
    struct iovec parts[2] = {{bytes, 200}, {bytes + 200, 400}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t all = sent - received < 600 ? sent - received : 600, count = -1;
    switch (way % 7) {
    case 0: count = read(ends[1], bytes, all); break;
    case 1: count = recv(ends[1], bytes, all, 0); break;
    case 2: count = recv(ends[1], bytes, all, MSG_WAITALL); CHECK(count == all); break;
    case 3: count = recv(ends[1], bytes, all, MSG_DONTWAIT | MSG_NOSIGNAL); break;
    case 4: count = recvmsg(ends[1], &header, MSG_DONTWAIT); break;
    case 5: count = readv(ends[1], parts, 2); break;
    case 6: count = preadv2(ends[1], parts, 2, -1, 0); break;
    }
    check(bytes, count);
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_pipe};
    CHECK(sigaction(SIGPIPE, &action, 0) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        sent = received = 0;
        for (int way = 0; way < 42; way++) {
            send_some(way + round);
            if (way % 3 == 2)
                receive_some(way / 3 + round);
        }
        for (int way = 0; received < sent; way++)
            receive_some(way);
        char byte;
        CHECK(recv(ends[1], &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        CHECK(close(ends[1]) == 0);
        pipes = 0;
        CHECK(send(ends[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE && pipes == 0);
        CHECK(send(ends[0], "x", 1, 0) == -1 && errno == EPIPE && pipes == 1);
        CHECK(close(ends[0]) == 0);
        say("round %d: %lu bytes", round, (unsigned long)sent);
    }
    CHECK(send(1, "x", 1, 0) == -1 && errno == ENOTSOCK && recv(0, ends, 1, 0) == -1 && errno == ENOTSOCK);
    say("ok");
    return 0;
}
