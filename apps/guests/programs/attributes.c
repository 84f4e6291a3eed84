/* What the kernel knows of a process beside its rights: limits, processors, nice values, policies, classes of input and
 * output, timer slack, dumpability, huge pages, the reaper of orphans, personality, oom_score_adj; of a thread its own. */
#include <linux/membarrier.h>
#include <sys/personality.h>

static const int LIMITS[] = {RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_NOFILE,
                             RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_CPU, RLIMIT_AS, RLIMIT_DATA};
#define LIMIT_COUNT (int)(sizeof LIMITS / sizeof *LIMITS)

static long number(const char *file)
{
    char text[64] = "";
    int fd = open(file, O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, 63) > 0 && close(fd) == 0);
    return strtol(text, 0, 0);
}

static int io_class(void)
{
    return syscall(SYS_ioprio_get, 1, 0);
}

static void own(const char *who, int r)
{
    cpu_set_t set;
    struct sched_param p = {0};
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    int policy = sched_getscheduler(0);
    CHECK(sched_getparam(0, &p) == 0);
    say("%s %d: processors %d, policy %d %d, nice %d, io %x, slack %d", who, r, CPU_COUNT(&set), policy,
        p.sched_priority, getpriority(PRIO_PROCESS, 0), io_class(), prctl(PR_GET_TIMERSLACK));
}

static pthread_barrier_t turn;

static void *other(void *unused)
{
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_barrier_wait(&turn);
        if (r == 3) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(0, &one);
            CHECK(sched_setaffinity(0, sizeof one, &one) == 0 && setpriority(PRIO_PROCESS, 0, 7) == 0);
            CHECK(prctl(PR_SET_TIMERSLACK, 123456) == 0);
        }
        own("thread", r);
        pthread_barrier_wait(&turn);
    }
    return unused;
}

int main(void)
{
    pthread_t thread;
    CHECK(pthread_barrier_init(&turn, 0, 2) == 0 && pthread_create(&thread, 0, other, 0) == 0);
    CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
    struct sched_param none = {0};
    long score = 0;
    struct rlimit files;
    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = 400;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        struct rlimit limit;
        CHECK(getrlimit(LIMITS[r % LIMIT_COUNT], &limit) == 0);
        rlim_t most = limit.rlim_max < 1 << 30 ? limit.rlim_max : 1 << 30;
        limit.rlim_cur = LIMITS[r % LIMIT_COUNT] == RLIMIT_NOFILE ? 500 : most - 8 * r;
        CHECK(setrlimit(LIMITS[r % LIMIT_COUNT], &limit) == 0);
        switch (r) {
        case 4: CHECK(setpriority(PRIO_PROCESS, 0, 3) == 0); break;
        case 6: CHECK(sched_setscheduler(0, SCHED_BATCH, &none) == 0); break;
        case 8: CHECK(syscall(SYS_ioprio_set, 1, 0, 3 << 13) == 0); break;
        case 10: CHECK(prctl(PR_SET_TIMERSLACK, 77000) == 0); break;
        case 12: CHECK(prctl(PR_SET_DUMPABLE, 0) == 0); break;
        case 14: CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0); break;
        case 16: CHECK(personality(ADDR_NO_RANDOMIZE) != -1); break;
        case 18: CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0); break;
        case 20: {
            int fd = open("/proc/self/oom_score_adj", O_WRONLY);
            score = number("/proc/self/oom_score_adj") + 111;
            char text[32];
            sprintf(text, "%ld\n", score);
            CHECK(fd >= 0 && write(fd, text, strlen(text)) > 0 && close(fd) == 0);
            break;
        }
        }
        say("round %d set", r);
        for (int i = 0; i < LIMIT_COUNT; i++) {
            CHECK(getrlimit(LIMITS[i], &limit) == 0);
            say("round %d limit %d: %lld", r, LIMITS[i], (long long)limit.rlim_cur);
        }
        own("first", r);
        int reaper = -1;
        CHECK(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0);
        say("round %d: dumpable %d, huge pages %d, reaper %d, personality %x", r, prctl(PR_GET_DUMPABLE),
            prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), reaper, personality(0xffffffff));
        CHECK(r < 20 || number("/proc/self/oom_score_adj") == score);
        CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
        /* A limit means something. */
        CHECK(r < 20 || mmap(0, 1 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
    }
    CHECK(pthread_join(thread, 0) == 0);
    say("ok");
    return 0;
}
