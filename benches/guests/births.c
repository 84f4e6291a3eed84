/* births KIND COUNT MEGABYTES: makes COUNT processes one after the other, from one of so many resident megabytes, and
 * prints for each how many ns it took: fork (and exit), exec (fork, exec of true), spawn (posix_spawn of true), or
 * commit: a visible event (a byte to standard output) while MEGABYTES other processes run. sleepers: while they sleep. */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"

extern char **environ;

static int failed(const char *what)
{
    perror(what);
    return 1;
}

/* Processes that run, or sleep, until they are killed. */
static void crowd(int count, int sleeping, pid_t *pids)
{
    for (int i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] != 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        volatile unsigned long sum = 0;
        for (;;) {
            if (sleeping)
                pause();
            sum++;
        }
    }
}

static int commits(int count, int others, int sleeping)
{
    pid_t pids[256];
    static volatile char memory[3 * 4096];
    long *taken = malloc(count * sizeof *taken);
    crowd(others, sleeping, pids);
    usleep(100000);
    for (int i = 0; i < count; i++) {
        for (int page = 0; page < 3; page++)
            memory[page * 4096]++;
        usleep(2000); /* the others run meanwhile */
        long begun = now_ns();
        if (write(1, "\n", 1) != 1)
            return failed("write");
        taken[i] = now_ns() - begun;
    }
    for (int i = 0; i < others; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], 0, 0);
    }
    for (int i = 0; i < count; i++)
        printf("%ld\n", taken[i]);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    const char *kind = argv[1];
    int count = atoi(argv[2]);
    size_t size = (size_t)atoi(argv[3]) << 20;
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    if (!strcmp(kind, "commit") || !strcmp(kind, "sleepers"))
        return commits(count, atoi(argv[3]), *kind == 's');
    char *resident = malloc(size + 1);
    if (!resident)
        return failed("malloc");
    for (size_t at = 0; at < size; at += 4096)
        resident[at] = at >> 12;
    char *true_argv[] = {"true", 0};
    for (int i = 0; i < count; i++) {
        long begun = now_ns();
        int status;
        pid_t pid;
        if (!strcmp(kind, "spawn")) {
            if (posix_spawn(&pid, "/bin/true", 0, 0, true_argv, environ) != 0)
                return failed("posix_spawn");
        } else {
            pid = fork();
            if (pid == 0 && !strcmp(kind, "exec")) {
                execv("/bin/true", true_argv);
                _exit(127);
            }
            if (pid == 0)
                _exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
            return failed("child");
        printf("%ld\n", now_ns() - begun);
    }
    return 0;
}
