/* Settings of a process that another one makes, as renice, taskset, ionice, prlimit and choom do: of a parent by its
 * child, of a child by its parent, and of a group. */
#include <sys/wait.h>

static void show(const char *who, pid_t pid)
{
    char path[64], score[16] = "", filter[16] = "";
    cpu_set_t set;
    struct rlimit core, size;
    CHECK(sched_getaffinity(pid, sizeof set, &set) == 0);
    CHECK(prlimit(pid, RLIMIT_CORE, 0, &core) == 0 && prlimit(pid, RLIMIT_FSIZE, 0, &size) == 0);
    char *texts[] = {score, filter};
    const char *names[] = {"oom_score_adj", "coredump_filter"};
    for (int i = 0; i < 2; i++) {
        sprintf(path, "/proc/%d/%s", pid, names[i]);
        int fd = open(path, O_RDONLY);
        CHECK(fd >= 0 && read(fd, texts[i], 15) > 0 && close(fd) == 0);
        texts[i][strcspn(texts[i], "\n")] = 0;
    }
    say("%s: nice %d, policy %d, io %lx, processors %d, core %ld, size %ld, score %s, filter %s", who,
        getpriority(PRIO_PROCESS, pid), sched_getscheduler(pid), syscall(SYS_ioprio_get, 1, pid), CPU_COUNT(&set),
        (long)core.rlim_cur, (long)size.rlim_cur, score, filter);
}

static void put(pid_t pid, const char *name, const char *value)
{
    char path[64];
    sprintf(path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, value, strlen(value)) > 0 && close(fd) == 0);
}

/* In steps, for only once can much of it be set. */
static void set(pid_t pid, pid_t group, int round)
{
    struct sched_param none = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    struct rlimit limit = {(1L << 40) - round, RLIM_INFINITY};
    CHECK(setpriority(PRIO_PROCESS, pid, 1 + round / 4) == 0);
    CHECK(prlimit(pid, RLIMIT_FSIZE, &limit, 0) == 0);
    char score[16];
    sprintf(score, "%d", 100 + round);
    put(pid, "oom_score_adj", score);
    switch (round) {
    case 3: CHECK(sched_setaffinity(pid, sizeof one, &one) == 0); break;
    case 5: CHECK(sched_setscheduler(pid, SCHED_BATCH, &none) == 0); break;
    case 7: CHECK(syscall(SYS_ioprio_set, 1, pid, 2 << 13 | 6) == 0); break;
    case 9: put(pid, "coredump_filter", "0x13"); break;
    case 11: limit.rlim_cur = 0; CHECK(prlimit(pid, RLIMIT_CORE, &limit, 0) == 0); break;
    case 13: CHECK(group == 0 || setpriority(PRIO_PGRP, group, 9) == 0); break;
    }
}

int main(void)
{
    int go[2], done[2];
    pid_t parent = getpid();
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    pid_t child = fork(), still = child ? fork() : 0;
    if (child == 0) {
        char round;
        close(go[1]);
        while (read(go[0], &round, 1) == 1) {
            set(parent, 0, round);
            CHECK(write(done[1], &round, 1) == 1);
        }
        _exit(0);
    }
    if (still == 0) {
        close(go[1]);
        pause();
    }
    CHECK(setpgid(still, still) == 0);
    close(go[0]);
    for (char r = 1; r <= ROUNDS / 2; r++) {
        CHECK(write(go[1], &r, 1) == 1 && read(done[0], &r, 1) == 1);
        say("round %d: the child has set", r);
        show("parent", parent);
        set(still, still, r);
        say("round %d: the parent has set", r);
        show("still", still);
        show("parent", parent);
    }
    close(go[1]);
    CHECK(waitpid(child, 0, 0) == child && kill(still, SIGKILL) == 0 && waitpid(still, 0, 0) == still);
    say("ok");
    return 0;
}
