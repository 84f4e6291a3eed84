/*
 * Ends of pipes go to a process in a message, which gives them to a child of its own as input and
 * output, as Erlang's helper does to start programs.
 */
#include <sys/socket.h>
#include <sys/wait.h>

static int send_two(int through, const int fds[2])
{
    char byte = 'p', control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(head), fds, 2 * sizeof(int));
    return sendmsg(through, &message, MSG_NOSIGNAL) == 1;
}

/* False at the end. */
static int receive_two(int through, int fds[2])
{
    char byte, control[CMSG_SPACE(2 * sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(through, &message, 0) != 1)
        return 0;
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), 2 * sizeof(int));
    return 1;
}

/* Starts what adds a thousand to each number, with the descriptors that come. */
static void launcher(int through)
{
    int fds[2];
    while (receive_two(through, fds)) {
        pid_t child = fork();
        if (child == 0) {
            int value;
            close(through);
            while (read(fds[0], &value, sizeof value) == sizeof value) {
                value += 1000;
                CHECK(write(fds[1], &value, sizeof value) == sizeof value);
            }
            _exit(3);
        }
        close(fds[0]);
        close(fds[1]);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
    }
    _exit(0);
}

static pid_t launcher_pid;

static int start_launcher(void)
{
    int way[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, way) == 0);
    launcher_pid = fork();
    if (launcher_pid == 0) {
        close(way[0]);
        launcher(way[1]);
    }
    close(way[1]);
    return way[0];
}

static void end_launcher(int way)
{
    int status;
    close(way);
    CHECK(waitpid(launcher_pid, &status, 0) == launcher_pid && status == 0);
}

/* Hands the far ends over, and sends a number through them. False if the message was lost, as it
 * may be by a death of all. */
static int hand_over(int way, int to[2], int from[2])
{
    int value = 0;
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    int sent = send_two(way, (int[2]){to[0], from[1]});
    close(to[0]);
    close(from[1]);
    if (sent && write(to[1], &value, sizeof value) == sizeof value &&
        read(from[0], &value, sizeof value) == sizeof value)
        return 1;
    close(to[1]);
    close(from[0]);
    return 0;
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    int way = start_launcher();
    for (int round = 0; round < 8; round++) {
        int to[2], from[2];
        while (!hand_over(way, to, from)) {
            end_launcher(way);
            way = start_launcher();
        }
        /* Several at once, so that something lies in the pipes between commits. */
        for (int i = 0; i < 4; i++) {
            int values[3] = {i, 10 + i, 20 + i};
            CHECK(write(to[1], values, sizeof values) == sizeof values);
            for (int n = 0; n < 3; n++) {
                int value;
                CHECK(read(from[0], &value, sizeof value) == sizeof value);
                say("%d.%d: %d", round, i, value);
            }
        }
        close(to[1]);
        char none;
        CHECK(read(from[0], &none, 1) == 0);
        close(from[0]);
    }
    end_launcher(way);
    say("ok");
    return 0;
}
