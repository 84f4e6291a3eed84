/*
 * One end of a socket pair goes to another process in a message, and is then used from there.
 */
#include <sys/socket.h>
#include <sys/wait.h>

static void read_all(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)to + done, len - done);
        CHECK(n > 0);
        done += n;
    }
}

static void send_socket(int through, int fd)
{
    char byte = 's', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    CHECK(sendmsg(through, &message, 0) == 1);
}

static int receive_socket(int through)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd;
    CHECK(recvmsg(through, &message, 0) == 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* One end of a pair goes to another process by a message. */
static void handed_over(int round)
{
    int way[2], pair[2];
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
    CHECK(socketpair(AF_UNIX, types[round % 3], 0, way) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(way[0]);
        int fd = receive_socket(way[1]);
        for (int i = 0; i < 5; i++) {
            int value;
            read_all(fd, &value, sizeof value);
            value += 1000;
            CHECK(write(fd, &value, sizeof value) == sizeof value);
        }
        _exit(0);
    }
    close(way[1]);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    send_socket(way[0], pair[1]);
    close(pair[1]);
    for (int i = 0; i < 5; i++) {
        int value = i;
        CHECK(write(pair[0], &value, sizeof value) == sizeof value);
        read_all(pair[0], &value, sizeof value);
        say("%d handed over: %d", round, value);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(close(pair[0]) == 0 && close(way[0]) == 0);
}

int main(void)
{
    for (int round = 0; round < 20; round++)
        handed_over(round);
    say("ok");
    return 0;
}
