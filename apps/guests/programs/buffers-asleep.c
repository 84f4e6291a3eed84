// Calls that write into memory that has been quiet for long, beside pages that are written all the time: all of what was
// asked for must come, and nothing that was taken from a socket may be lost.
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#define LEN 12288
static unsigned char *quiet;
static int fd, pair[2], server;

/* Chance before a line: a commit. */
static void commits(void)
{
    for (int n = 0; n < 40; n++) {
        unsigned char chance;
        CHECK(syscall(SYS_getrandom, &chance, 1, 0) == 1);
        quiet[1 << 20]++;
        say("%d", n);
    }
}

static unsigned char expected(int i)
{
    return (unsigned char)(i * 7 + i / 251);
}

static void fill(int nth, unsigned char *at)
{
    struct iovec parts[2] = {{at, 100}, {at + 100, LEN - 100}};
    memset(at, 0, LEN);
    commits();
    if (nth == 0) {
        CHECK(pread(fd, at, LEN, 0) == LEN);
    } else if (nth == 1) {
        CHECK(preadv(fd, parts, 2, 0) == LEN);
    } else if (nth == 2) {
        CHECK(lseek(fd, 0, SEEK_SET) == 0 && read(fd, at, LEN) == LEN);
    } else if (nth == 3) {
        CHECK(lseek(fd, 0, SEEK_SET) == 0 && readv(fd, parts, 2) == LEN);
    } else if (nth == 4) {
        unsigned char message[LEN];
        for (int i = 0; i < LEN; i++)
            message[i] = expected(i);
        CHECK(send(pair[0], message, LEN, 0) == LEN);
        struct msghdr head = {.msg_iov = parts, .msg_iovlen = 2};
        CHECK(recvmsg(pair[1], &head, 0) == LEN);
    } else {
        // The address of a peer; the rest as it should be.
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        socklen_t len = sizeof name;
        CHECK(getsockname(server, (struct sockaddr *)&name, &len) == 0);
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK(client >= 0 && connect(client, (struct sockaddr *)&name, len) == 0);
        socklen_t *got = (socklen_t *)(at + 8192);
        *got = 64;
        commits();
        int peer = accept(server, (struct sockaddr *)at, got);
        CHECK(peer >= 0 && *got >= 2 && ((struct sockaddr *)at)->sa_family == AF_UNIX);
        close(peer);
        close(client);
        for (int i = 0; i < LEN; i++)
            at[i] = expected(i);
    }
    for (int i = 0; i < LEN; i++)
        CHECK(at[i] == expected(i));
    say("way %d", nth);
}

int main(void)
{
    unsigned char contents[LEN];
    for (int i = 0; i < LEN; i++)
        contents[i] = expected(i);
    fd = open("contents", O_CREAT | O_RDWR | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, contents, LEN) == LEN);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    server = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(server >= 0 && bind(server, (struct sockaddr *)&any, sizeof any.sun_family) == 0 && listen(server, 4) == 0);
    quiet = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(quiet != MAP_FAILED);
    memset(quiet, 1, 4 << 20);
#ifdef SOCKETS
    for (int nth = 4; nth < 6; nth++) {
#else
    for (int nth = 0; nth < 4; nth++) {
#endif
        // Into the page that is always written, and out of it on both sides.
        fill(nth, quiet + (1 << 20) + 100);
        fill(nth, quiet + (1 << 20) - 5000);
    }
    say("ok");
    return 0;
}
