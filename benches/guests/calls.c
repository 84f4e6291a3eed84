/*
 * calls WHAT REPEATS ROUNDS
 *
 * Prints the ns that one WHAT takes, a line a round; the last line is "ok", or
 * what failed. Each WHAT is a process of its own, so that one that is not
 * supported does not take the others with it.
 */
#include "clock.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int descriptor, pair_there[2], pair_back[2];
static char byte;
static void *volatile block;

static int getppid_call(void) { return getppid() < 0; }
/* The number comes in a register here. */
static int getppid_direct(void) { return syscall(SYS_getppid) < 0; }
/* A site of no form that the runtime knows, so each call traps. */
static int getppid_trap(void)
{
    long r = SYS_getppid;
    __asm__ volatile("nop\n nop\n syscall" : "+a"(r) : : "rcx", "r11", "memory");
    return r < 0;
}
static int read_call(void) { return read(descriptor, &byte, 1) != 1; }
static int read_at_call(void) { return pread(descriptor, &byte, 1, 0) != 1; }
static int write_call(void) { return write(descriptor, &byte, 1) != 1; }

static int open_close(void)
{
    int fd = open("/dev/null", O_RDONLY);
    return fd < 0 || close(fd) != 0;
}

static int clock_call(void)
{
    struct timespec t;
    return clock_gettime(CLOCK_MONOTONIC, &t);
}

static int malloc_free(void)
{
    block = malloc(200);
    free(block);
    return 0;
}

static void *echo(void *nothing)
{
    char received;
    while (read(pair_there[0], &received, 1) == 1 && write(pair_back[1], &received, 1) == 1)
        ;
    return nothing;
}

static int ping_pong(void)
{
    return write(pair_there[1], &byte, 1) != 1 || read(pair_back[0], &byte, 1) != 1;
}

static int fork_exec(void)
{
    pid_t child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        execl("/bin/true", "true", (char *)0);
        _exit(errno == ENOSYS ? 38 : 127);
    }
    int status;
    if (waitpid(child, &status, 0) != child)
        return 1;
    if (status == 0)
        return 0;
    errno = WIFEXITED(status) && WEXITSTATUS(status) == 38 ? ENOSYS : ECHILD;
    return 1;
}

static const struct {
    const char *name;
    int (*once)(void);
    const char *path;
    int flags;
} kinds[] = {
    {"getppid", getppid_call, 0, 0},
    {"getppid-direct", getppid_direct, 0, 0},
    {"getppid-trap", getppid_trap, 0, 0},
    {"read-zero", read_call, "/dev/zero", O_RDONLY},
    {"read-file", read_at_call, "/proc/self/exe", O_RDONLY},
    {"write-null", write_call, "/dev/null", O_WRONLY},
    {"open-close", open_close, 0, 0},
    {"clock", clock_call, 0, 0},
    {"malloc-free", malloc_free, 0, 0},
    {"ping-pong", ping_pong, 0, 0},
    {"fork-exec", fork_exec, 0, 0},
};

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long repeats = atol(argv[2]), rounds = atol(argv[3]);
    size_t kind = 0;
    while (kind < sizeof kinds / sizeof *kinds && strcmp(kinds[kind].name, argv[1]) != 0)
        kind++;
    if (kind == sizeof kinds / sizeof *kinds)
        return 2;
    if (kinds[kind].path) {
        /* The program's own file, by name: some may not offer /proc/self/exe. */
        const char *path = kinds[kind].once == read_at_call ? argv[0] : kinds[kind].path;
        descriptor = open(path, kinds[kind].flags);
        if (descriptor < 0) {
            printf("open %s: %s\n", path, strerror(errno));
            return 0;
        }
    }
    if (kinds[kind].once == ping_pong) {
        pthread_t thread;
        if (pipe(pair_there) || pipe(pair_back) || pthread_create(&thread, 0, echo, 0)) {
            printf("pipes and a thread: %s\n", strerror(errno));
            return 0;
        }
    }
    double taken_ns[64];
    if (rounds > 64)
        rounds = 64;
    for (long round = 0; round < rounds; round++) {
        unsigned long begun = now_ns();
        for (long repeat = 0; repeat < repeats; repeat++)
            if (kinds[kind].once()) {
                printf("%s\n", strerror(errno));
                return 0;
            }
        taken_ns[round] = (double)(now_ns() - begun) / (double)repeats;
    }
    for (long round = 0; round < rounds; round++)
        printf("%.2f\n", taken_ns[round]);
    printf("ok\n");
    return 0;
}
