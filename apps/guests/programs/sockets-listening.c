/*
 * Servers that listen: for streams on TCP over IPv4 and IPv6 and on a path, for datagrams on UDP and on a path. Whatever
 * dies, they have their addresses, options and files, and whoever comes again is served; a connection may end meanwhile,
 * with an error, but never as if all had been said.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct service {
    const char *name;
    int family, type, fd;
    struct sockaddr_storage address;
    socklen_t len;
} services[] = {
    {"TCP", AF_INET, SOCK_STREAM, -1, {0}, 0},
    {"TCP over IPv6", AF_INET6, SOCK_STREAM, -1, {0}, 0},
    {"a path", AF_UNIX, SOCK_STREAM, -1, {0}, 0},
    {"UDP", AF_INET, SOCK_DGRAM, -1, {0}, 0},
    {"datagrams at a path", AF_UNIX, SOCK_DGRAM, -1, {0}, 0},
};
enum { SERVICES = sizeof services / sizeof *services };

static void start(struct service *s)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int buffer = 100000, one = 1;
    snprintf(un.sun_path, sizeof un.sun_path, "listening-%d", s->type);
    s->fd = socket(s->family, s->type | SOCK_CLOEXEC, 0);
    CHECK(s->fd >= 0);
    CHECK(setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) == 0);
    if (s->type == SOCK_STREAM && s->family != AF_UNIX)
        CHECK(setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    switch (s->family) {
    case AF_INET:
        CHECK(bind(s->fd, (struct sockaddr *)&in, sizeof in) == 0);
        break;
    case AF_INET6:
        CHECK(bind(s->fd, (struct sockaddr *)&in6, sizeof in6) == 0);
        break;
    default:
        CHECK(bind(s->fd, (struct sockaddr *)&un, sizeof un) == 0);
        CHECK(chmod(un.sun_path, 0640) == 0);
    }
    if (s->type == SOCK_STREAM)
        CHECK(listen(s->fd, 7) == 0);
    s->len = sizeof s->address;
    CHECK(getsockname(s->fd, (struct sockaddr *)&s->address, &s->len) == 0);
}

/* All that can be asked of it is as it was set. */
static void look(struct service *s)
{
    struct sockaddr_storage now;
    socklen_t len = sizeof now, size = sizeof(int);
    int value;
    memset(&now, 0, sizeof now);
    CHECK(getsockname(s->fd, (struct sockaddr *)&now, &len) == 0);
    CHECK(len == s->len && memcmp(&now, &s->address, len) == 0);
    CHECK(getsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &value, &size) == 0 && value == 200000);
    CHECK(getsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &value, &size) == 0 && value == 0);
    CHECK(getsockopt(s->fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value == (s->type == SOCK_STREAM));
    if (s->type == SOCK_STREAM && s->family != AF_UNIX)
        CHECK(getsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0 && value != 0);
    if (s->family == AF_UNIX) {
        struct stat st;
        CHECK(stat(((struct sockaddr_un *)&s->address)->sun_path, &st) == 0);
        CHECK((st.st_mode & 0777) == 0640);
    }
    CHECK(fcntl(s->fd, F_GETFD) == FD_CLOEXEC);
}

static int is_cut(void)
{
    return errno == ECONNRESET || errno == EPIPE || errno == ECONNREFUSED;
}

/* A question and its answer by a connection; 0 if it was cut on the way. */
static int by_connection(struct service *s, int question)
{
    int answer = 0, client = socket(s->family, s->type | SOCK_CLOEXEC, 0), server = -1, whole = 0;
    CHECK(client >= 0);
    if (connect(client, (struct sockaddr *)&s->address, s->len) != 0) {
        CHECK(is_cut());
        goto out;
    }
    if (send(client, &question, sizeof question, MSG_NOSIGNAL) < 0) {
        CHECK(is_cut());
        goto out;
    }
    struct pollfd comes = {s->fd, POLLIN, 0};
    if (poll(&comes, 1, 1000) == 0)
        goto out; /* It waited to be accepted, and is gone. */
    server = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
    CHECK(server >= 0);
    ssize_t n = recv(server, &answer, sizeof answer, MSG_WAITALL);
    if (n < 0) {
        CHECK(is_cut());
        goto out;
    }
    CHECK(n == sizeof answer);
    answer = (int)mix(answer);
    if (send(server, &answer, sizeof answer, MSG_NOSIGNAL) < 0) {
        CHECK(is_cut());
        goto out;
    }
    answer = 0;
    n = recv(client, &answer, sizeof answer, MSG_WAITALL);
    if (n < 0) {
        CHECK(is_cut());
        goto out;
    }
    CHECK(n == sizeof answer && answer == (int)mix(question));
    whole = 1;
out:
    if (server >= 0)
        close(server);
    close(client);
    return whole;
}

static int by_datagram(struct service *s, int question)
{
    int answer = 0, client = socket(s->family, s->type | SOCK_CLOEXEC, 0);
    CHECK(client >= 0);
    CHECK(connect(client, (struct sockaddr *)&s->address, s->len) == 0);
    struct timeval patience = {1, 0};
    CHECK(setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    int sent = send(client, &question, sizeof question, 0) == sizeof question;
    int came = sent && recv(s->fd, &answer, sizeof answer, 0) == sizeof answer;
    CHECK(!came || answer == question);
    close(client);
    return came;
}

int main(void)
{
    for (int i = 0; i < SERVICES; i++)
        start(&services[i]);
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < SERVICES; i++) {
            struct service *s = &services[i];
            look(s);
            int tries = 0;
            while (!(s->type == SOCK_STREAM ? by_connection : by_datagram)(s, 100 * round + i))
                CHECK(++tries < 100);
            look(s);
            say("%d %s: served", round, s->name);
        }
    }
    for (int i = 0; i < SERVICES; i++)
        CHECK(close(services[i].fd) == 0);
    CHECK(unlink("listening-1") == 0 && unlink("listening-2") == 0);
    say("ok");
    return 0;
}
