/* A thread that reads while another one starts programs and blocks all signals for that: whoever takes the signal of their
 * ends, nothing comes of it, and the read goes on. */
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static int ends[2];

static void *reads(void *unused)
{
    char byte = 0;
    int r = read(ends[0], &byte, 1);
    say("read: %d, errno %d, byte %d", r, r < 0 ? errno : 0, byte);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t reader;
    char *args[] = {argv[0], "ends", 0};
    if (argc > 1)
        return 0;
    CHECK(pipe(ends) == 0 && pthread_create(&reader, 0, reads, 0) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        if (r == 24)
            CHECK(write(ends[1], "x", 1) == 1 && pthread_join(reader, 0) == 0);
        say("round %d", r);
        for (int i = 0; i < 3; i++) {
            pid_t pid;
            CHECK(posix_spawn(&pid, argv[0], 0, 0, args, environ) == 0 && waitpid(pid, 0, 0) == pid);
        }
        compute(1);
    }
    say("ok");
    return 0;
}
