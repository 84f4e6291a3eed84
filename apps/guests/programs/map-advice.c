/*
 * Advice that stays with memory: what a fork leaves out or wipes, and what no core dump
 * holds. It counts for children of a recovered program as well, and for memory that moved.
 */
#include <sys/wait.h>

enum { PAGE = 4096, LEN = 16 * PAGE };

static unsigned char *kept, *wiped, *left_out, *undumped;

static unsigned char *area(unsigned char with, int advice)
{
    unsigned char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    memset(p, with, LEN);
    if (advice)
        CHECK(madvise(p, LEN, advice) == 0);
    return p;
}

static int is_mapped(void *p)
{
    unsigned char pages[LEN / PAGE];
    return mincore(p, LEN, pages) == 0;
}

/* What the kernel shows of one mapping. */
static int has_flag(void *p, const char *flag)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512];
    int inside = 0, found = -1;
    CHECK(maps);
    while (found < 0 && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from <= (unsigned long)p && (unsigned long)p < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    fclose(maps);
    return found;
}

static unsigned sum(const unsigned char *p)
{
    unsigned total = 0;
    for (int i = 0; i < LEN; i++)
        total += p[i];
    return total;
}

static void child_says(int round, const char *how)
{
    int out = is_mapped(left_out);
    say("%d %s: kept %u, wiped %u, left out %s", round, how, sum(kept), sum(wiped), out ? "no" : "yes");
    /* After a death the child is what it was. */
    kept[0]++;
    out = is_mapped(left_out);
    say("%d %s: kept %u, wiped %u, left out %s", round, how, sum(kept), sum(wiped), out ? "no" : "yes");
}

static void forks(int round)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        child_says(round, "child");
        memset(wiped, 5, LEN);
        pid_t other = fork();
        if (other == 0) {
            child_says(round, "grandchild");
            _exit(3);
        }
        CHECK(waitpid(other, &status, 0) == other && WEXITSTATUS(status) == 3);
        _exit(4);
    }
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4);
}

/* It has all memory of its parent, advice or not. */
static void vforks(int round)
{
    int status;
    unsigned in_common = sum(wiped) + sum(left_out);
    pid_t child = vfork();
    if (child == 0)
        _exit(sum(wiped) + sum(left_out) == in_common ? 6 : 7);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    say("%d vfork: %d, dumped %d", round, WEXITSTATUS(status), has_flag(undumped, " dd") == 0);
}

int main(void)
{
    kept = area(1, 0);
    wiped = area(2, MADV_WIPEONFORK);
    left_out = area(3, MADV_DONTFORK);
    undumped = area(4, MADV_DONTDUMP);
    for (int round = 0; round < 3; round++) {
        say("%d parent: %u %u %u %u", round, sum(kept), sum(wiped), sum(left_out), sum(undumped));
        forks(round);
        vforks(round);
    }
    /* It goes along with memory that moves, and with one part of an area only. */
    void *place = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    wiped = mremap(wiped, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    CHECK(wiped == place && madvise(wiped + LEN / 2, LEN / 2, MADV_KEEPONFORK) == 0);
    say("moved: %u", sum(wiped));
    forks(3);
    CHECK(madvise(left_out, LEN, MADV_DOFORK) == 0);
    CHECK(madvise(wiped, LEN, MADV_KEEPONFORK) == 0);
    say("taken back");
    forks(4);
    vforks(4);
    /* Only private memory without a file can be wiped. */
    void *shared = mmap(NULL, LEN, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int r = madvise(shared, LEN, MADV_WIPEONFORK);
    say("shared: %d %s", r, strerror(errno));
    return 0;
}
