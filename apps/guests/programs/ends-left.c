/*
 * Ends of a pipe and of a socket with bytes inside, which a child has inherited and closes one after the other or by an exec,
 * while its parent goes on: the bytes stay, whatever the child is thrown back to.
 */
#include <sys/socket.h>
#include <sys/wait.h>

static void round_of(int round, const char *name, int ends[2], int writer, int reader)
{
    int status;
    char got[32] = "";
    CHECK(write(ends[writer], "token", 5) == 5);
    say("%d %s put", round, name);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        /* Until it is committed with what it has. */
        compute(2500);
        if (round % 2) {
            /* All at once, by an exec. */
            for (int i = 0; i < 2; i++)
                CHECK(fcntl(ends[i], F_SETFD, FD_CLOEXEC) == 0);
            execl("/proc/self/exe", "ends-left", "rest", (char *)NULL);
            _exit(1);
        }
        for (int i = 0; i < 2; i++) {
            CHECK(close(ends[i]) == 0);
            compute(2500);
            /* What it opens next gets the number of what was closed. */
            int next = open("/dev/null", O_RDWR);
            CHECK(next == ends[0]);
            compute(2500);
            CHECK(close(next) == 0);
        }
        compute(2500);
        _exit(0);
    }
    /* Its parent commits all the time. */
    for (int i = 0; i < 25; i++) {
        say("%d %s at %d", round, name, i);
        compute(900);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(fcntl(ends[reader], F_SETFL, O_NONBLOCK) == 0);
    ssize_t n = read(ends[reader], got, sizeof got);
    say("%d %s got %zd: %.*s", round, name, n, n > 0 ? (int)n : 0, got);
    close(ends[0]);
    close(ends[1]);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        compute(8000);
        return strcmp(argv[1], "rest");
    }
    for (int round = 1; round <= 4; round++) {
        int ends[2];
        CHECK(pipe(ends) == 0);
        round_of(round, "pipe", ends, 1, 0);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        round_of(round, "stream", ends, 1, 0);
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
        round_of(round, "packets", ends, 0, 1);
    }
    say("ok");
    return 0;
}
