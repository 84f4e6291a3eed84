/*
 * Unix sockets between the processes of a program: what is on its way is there after any death, in order, with its borders
 * and its end; so is a connection that nobody has accepted yet.
 */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static void ends_well(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

static void read_all(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)to + done, len - done);
        CHECK(n > 0);
        done += n;
    }
}

/* What lies unread in a socket of one process, with its own end closed at last. */
static void alone(int round)
{
    int fds[2];
    char bytes[600];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    CHECK(read(fds[0], bytes, 1) == -1 && errno == EAGAIN);
    for (int i = 0; i < 5; i++) {
        memset(bytes, 'a' + i, sizeof bytes);
        CHECK(write(fds[1], bytes, 100) == 100);
        say("%d alone: %d lie there", round, 100 * (i + 1));
    }
    CHECK(read(fds[0], bytes, 250) == 250);
    say("%d alone: the first 250: %lx", round, checksum(bytes, 250));
    CHECK(shutdown(fds[1], SHUT_WR) == 0);
    say("%d alone: shut down", round);
    CHECK(write(fds[0], "back", 4) == 4);
    CHECK(read(fds[0], bytes, 600) == 250);
    say("%d alone: the rest: %lx", round, checksum(bytes, 250));
    CHECK(read(fds[0], bytes, 1) == 0);
    CHECK(read(fds[1], bytes, 600) == 4);
    CHECK(close(fds[1]) == 0);
    say("%d alone: closed", round);
    CHECK(read(fds[0], bytes, 1) == 0);
    CHECK(close(fds[0]) == 0);
}

/* A question and an answer, many times; then far more than is read at once. */
static void by_turns(int round)
{
    enum { MUCH = 120000 };
    static unsigned char much[MUCH];
    int fds[2], value;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(fds[0]);
        for (int i = 0; i < 10; i++) {
            read_all(fds[1], &value, sizeof value);
            value = (int)mix(value);
            CHECK(write(fds[1], &value, sizeof value) == sizeof value);
        }
        for (int i = 0; i < MUCH; i++)
            much[i] = mix(i + round);
        CHECK(write(fds[1], much, MUCH) == MUCH);
        _exit(0);
    }
    close(fds[1]);
    for (int i = 0; i < 10; i++) {
        CHECK(write(fds[0], &i, sizeof i) == sizeof i);
        read_all(fds[0], &value, sizeof value);
        say("%d by turns: %d gives %d", round, i, value);
    }
    /* The child has ended, and what it said is here. */
    ends_well(child);
    say("%d by turns: ended", round);
    for (int i = 0; i < 4; i++) {
        read_all(fds[0], much, MUCH / 4);
        say("%d by turns: a quarter: %lx", round, checksum(much, MUCH / 4));
    }
    CHECK(read(fds[0], much, 1) == 0);
    close(fds[0]);
}

static void messages(int round, int type, const char *name)
{
    int fds[2];
    char bytes[100];
    CHECK(socketpair(AF_UNIX, type, 0, fds) == 0);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 8; i++) {
            memset(bytes, '0' + i, sizeof bytes);
            CHECK(send(fds[1], bytes, 10 * i + 1, 0) == 10 * i + 1);
        }
        _exit(0);
    }
    ends_well(child);
    for (int i = 0; i < 8; i++) {
        struct iovec part = {bytes, sizeof bytes};
        struct mmsghdr one = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
        ssize_t n;
        if (i % 2 == 0) {
            n = recv(fds[0], bytes, sizeof bytes, 0);
        } else {
            CHECK(recvmmsg(fds[0], &one, 1, 0, NULL) == 1);
            n = one.msg_len;
        }
        say("%d %s: %zd of '%c'", round, name, n, bytes[0]);
        CHECK(n == 10 * i + 1);
    }
    CHECK(recv(fds[0], bytes, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    close(fds[0]);
    close(fds[1]);
}

/* A server and its clients, each a process; the address is a path, or abstract. */
static void served(int round, int abstract)
{
    enum { CLIENTS = 3 };
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path + abstract, sizeof name.sun_path - 1, "served-%d-%d", round, abstract ? getppid() : 0);
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name.sun_path + abstract);
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(server >= 0);
    CHECK(bind(server, (struct sockaddr *)&name, len) == 0);
    CHECK(listen(server, 8) == 0);
    say("%d served: listens", round);
    pid_t clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = fork();
        CHECK(clients[i] >= 0);
        if (clients[i] == 0) {
            close(server);
            int fd = socket(AF_UNIX, SOCK_STREAM, 0);
            CHECK(connect(fd, (struct sockaddr *)&name, len) == 0);
            if (i == 0) /* The others speak at once. */
                compute(200);
            for (int k = 0; k < 4; k++) {
                int value = 100 * i + k, answer;
                CHECK(write(fd, &value, sizeof value) == sizeof value);
                read_all(fd, &answer, sizeof answer);
                CHECK(answer == (int)mix(value));
            }
            _exit(0);
        }
    }
    say("%d served: clients come", round);
    unsigned sum = 0;
    for (int i = 0; i < CLIENTS; i++) {
        int fd = accept(server, NULL, NULL);
        CHECK(fd >= 0);
        for (int k = 0; k < 4; k++) {
            int value;
            read_all(fd, &value, sizeof value);
            sum += value;
            value = (int)mix(value);
            CHECK(write(fd, &value, sizeof value) == sizeof value);
        }
        CHECK(read(fd, &sum, 1) == 0);
        close(fd);
        say("%d served: one of them", round);
    }
    for (int i = 0; i < CLIENTS; i++)
        ends_well(clients[i]);
    say("%d served: %u", round, sum);
    close(server);
    if (!abstract)
        CHECK(unlink(name.sun_path) == 0);
}

int main(void)
{
    for (int round = 0; round < 3; round++) {
        alone(round);
        by_turns(round);
        messages(round, SOCK_SEQPACKET, "packets");
        messages(round, SOCK_DGRAM, "datagrams");
        served(round, 0);
        served(round, 1);
    }
    say("ok");
    return 0;
}
