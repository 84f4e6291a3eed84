/* Memory in which writes are found in another way than in common memory, or not at all: huge pages, private and shared,
 * /dev/zero, and a ring that the kernel fills. A line each round, and what it says depends on all that was written. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HUGE (2 << 20)

static uint64_t sum(const unsigned char *at, int len, uint64_t h)
{
    for (int i = 0; i < len; i += 61)
        h = (h ^ at[i]) * 0x100000001b3ULL;
    return h;
}

int main(void)
{
    unsigned char *own = mmap(0, 2 * HUGE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    unsigned char *shared = mmap(0, HUGE, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    int fd = open("/dev/zero", O_RDWR);
    unsigned char *zero = mmap(0, 65536, 3, MAP_SHARED, fd, 0);
    unsigned char *copy = mmap(0, 65536, 3, MAP_PRIVATE, fd, 0);
    if (own == MAP_FAILED || shared == MAP_FAILED || zero == MAP_FAILED || copy == MAP_FAILED)
        return puts("cannot map"), 1;
    struct perf_event_attr about = {.type = PERF_TYPE_SOFTWARE, .size = sizeof about, .config = PERF_COUNT_SW_DUMMY};
    int ring = syscall(SYS_perf_event_open, &about, 0, -1, -1, 0);
    void *filled = ring < 0 ? MAP_FAILED : mmap(0, 2 * 4096, 3, MAP_SHARED, ring, 0);
    fprintf(stderr, "ring: %s\n", ring < 0 ? "none here" : filled == MAP_FAILED ? strerror(errno) : "mapped");
    if (ring >= 0)
        close(ring);
    for (int r = 1; r <= 40; r++) {
        for (int i = 0; i < 3; i++) {
            own[(r * 7919 + i * 500009) % (2 * HUGE)] += r;
            shared[(r * 104729 + i * 300007) % HUGE] += r;
        }
        zero[r * 1001 % 65536] = copy[r * 1003 % 65536] = r;
        uint64_t h = sum(own, 2 * HUGE, 7);
        h = sum(shared, HUGE, h);
        h = sum(zero, 65536, h);
        h = sum(copy, 65536, h);
        char chance;
        getrandom(&chance, 1, 0);
        printf("%d %llx\n", r, (unsigned long long)h);
        fflush(stdout);
        usleep(20000);
    }
    return 0;
}
