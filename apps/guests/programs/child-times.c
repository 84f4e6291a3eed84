/* Processor time of children: nothing before they are waited for, then theirs and that of their own children; by every
 * call that tells it, and never less than before. */
#include <sys/times.h>
#include <sys/wait.h>

static long us_of(const struct rusage *u)
{
    return (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000L + u->ru_utime.tv_usec + u->ru_stime.tv_usec;
}

static long us(int who)
{
    struct rusage usage;
    CHECK(getrusage(who, &usage) == 0);
    return us_of(&usage);
}

#define BUSY_US 12000

static void be_busy(void)
{
    long begun = us(RUSAGE_SELF);
    while (us(RUSAGE_SELF) < begun + BUSY_US)
        ;
}

int main(void)
{
    long before = 0;
    for (int round = 0; round < ROUNDS / 3; round++) {
        CHECK(us(RUSAGE_CHILDREN) >= before && (round > 0 || us(RUSAGE_CHILDREN) == 0));
        before = us(RUSAGE_CHILDREN);
        int status, grandchildren = round % 2;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            CHECK(us(RUSAGE_CHILDREN) == 0);
            if (grandchildren) {
                pid_t next = fork();
                if (next == 0) {
                    be_busy();
                    _exit(1);
                }
                CHECK(waitpid(next, &status, 0) == next && us(RUSAGE_CHILDREN) >= BUSY_US);
            }
            be_busy();
            _exit(0);
        }
        struct rusage usage;
        struct tms told;
        CHECK(wait4(pid, &status, 0, &usage) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        long least = BUSY_US * (1 + grandchildren);
        CHECK(us_of(&usage) >= least);
        CHECK(us(RUSAGE_CHILDREN) >= before + least);
        CHECK(times(&told) != (clock_t)-1);
        CHECK((told.tms_cutime + told.tms_cstime + 2) * 10000 >= before + least);
        say("round %d: its time is counted", round);
    }
    say("ok");
    return 0;
}
