/*
 * A process that gives up rights and may then make no file longer and no process any more, as sshd's
 * does that speaks with the network: it goes on, and it is held to its limits.
 */
#include <sys/wait.h>

static void set(int which, rlim_t soft, rlim_t hard)
{
    struct rlimit limit = {soft, hard};
    CHECK(setrlimit(which, &limit) == 0);
}

static void tells(const char *name, int which)
{
    struct rlimit limit;
    CHECK(getrlimit(which, &limit) == 0);
    say("%s: %ld %ld", name, (long)limit.rlim_cur, (long)limit.rlim_max);
}

static void held(int file)
{
    struct rlimit more = {10, 10};
    /* (Whoever may raise limits again is not held to the number of processes.) */
    if (geteuid() != 0) {
        CHECK(setrlimit(RLIMIT_FSIZE, &more) == -1 && errno == EPERM);
        CHECK(setrlimit(RLIMIT_NPROC, &more) == -1 && errno == EPERM);
        CHECK(fork() == -1 && errno == EAGAIN);
    }
    CHECK(write(file, "0123456789", 10) == -1 && errno == EFBIG);
}

int main(void)
{
    int to[2], from[2], file = open("limited", O_RDWR | O_CREAT | O_TRUNC, 0666);
    CHECK(file >= 0 && pipe(to) == 0 && pipe(from) == 0);
    signal(SIGXFSZ, SIG_IGN);
    pid_t child = fork();
    if (child == 0) {
        close(to[1]);
        close(from[0]);
        if (geteuid() == 0)
            CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
        set(RLIMIT_FSIZE, 0, 0);
        set(RLIMIT_NPROC, 0, 0);
        int value;
        while (read(to[0], &value, sizeof value) == sizeof value) {
            held(file);
            /* Its image has to grow as well. */
            char *memory = malloc(1 << 20);
            CHECK(memory);
            memset(memory, value, 1 << 20);
            value += memory[value];
            CHECK(write(from[1], &value, sizeof value) == sizeof value);
        }
        tells("file size", RLIMIT_FSIZE);
        tells("processes", RLIMIT_NPROC);
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    for (int i = 0; i < 20; i++) {
        int value = i;
        CHECK(write(to[1], &value, sizeof value) == sizeof value);
        CHECK(read(from[0], &value, sizeof value) == sizeof value);
        say("%d: %d", i, value);
    }
    close(to[1]);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    say("ok");
    return 0;
}
