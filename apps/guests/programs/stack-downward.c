/* Memory that grows downward when it is touched: an area of its own, and the main stack made executable with what lies
 * below it; and processor time, which never goes back. */
#include <sys/times.h>

#define PAGE 4096

static int64_t last[6];

static void forward(void)
{
    struct timespec own, thread;
    struct rusage usage;
    struct tms ticks;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own) == 0 && clock_gettime(CLOCK_THREAD_CPUTIME_ID, &thread) == 0);
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0 && times(&ticks) != -1);
    clockid_t other;
    struct timespec same;
    CHECK(pthread_getcpuclockid(pthread_self(), &other) == 0 && clock_gettime(other, &same) == 0);
    int64_t now[6] = {own.tv_sec * 1000000000LL + own.tv_nsec,
                      thread.tv_sec * 1000000000LL + thread.tv_nsec,
                      same.tv_sec * 1000000000LL + same.tv_nsec,
                      usage.ru_utime.tv_sec * 1000000LL + usage.ru_utime.tv_usec,
                      usage.ru_stime.tv_sec * 1000000LL + usage.ru_stime.tv_usec,
                      ticks.tms_utime + ticks.tms_stime};
    for (int i = 0; i < 6; i++) {
        CHECK(now[i] >= last[i]);
        last[i] = now[i];
    }
    CHECK(now[2] >= now[1]);
}

int main(void)
{
    /* Its lower neighbour is far away. */
    unsigned char *far = mmap(0, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(far != MAP_FAILED && munmap(far, 64 << 20) == 0);
    unsigned char *top = mmap(far + (48 << 20), PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    CHECK(top != MAP_FAILED);
    compute(3000);
    for (int r = 1; r <= ROUNDS; r++) {
        forward();
        unsigned char *page = top - r * 2 * PAGE;
        page[100] = r;
        say("round %d: touched", r);
        CHECK(page[100] == r && page[PAGE + 5] == 0);
        for (int i = 1; i < r; i++)
            CHECK(top[-i * 2 * PAGE + 100] == i);
        int here = r;
        uintptr_t at = (uintptr_t)&here & ~(uintptr_t)(PAGE - 1);
        if (r == 10)
            CHECK(mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN) == 0);
        if (r == 12)
            CHECK(mprotect(far, PAGE, PROT_READ | PROT_GROWSDOWN) == -1);
        compute(20);
        forward();
        say("round %d: went on", r);
    }
    say("ok");
    return 0;
}
