/*
 * Robust mutexes in memory that processes share: whoever ends with one, by itself, by a signal or killed by another, leaves it
 * to the next, who is told (EOWNERDEAD). What the memory held was committed long before.
 */
#include <sys/mman.h>
#include <sys/wait.h>

enum { EXITS, IS_ENDED, IS_KILLED, WAYS };
static const char *const names[] = {"exits", "is ended by a signal", "is killed"};

static pthread_mutex_t *mutex_in(int fd)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t *mutex = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    CHECK(mutex != MAP_FAILED);
    CHECK(!pthread_mutexattr_init(&attr) && !pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
    CHECK(!pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) && !pthread_mutex_init(mutex, &attr));
    return mutex;
}

static void holds(pthread_mutex_t *mutex, int way, int tell)
{
    CHECK(pthread_mutex_lock(mutex) == 0);
    say("it is locked");
    CHECK(write(tell, "l", 1) == 1);
    if (way == EXITS)
        _exit(0);
    if (way == IS_ENDED)
        raise(SIGTERM);
    for (;;)
        pause();
}

int main(void)
{
    int tell[2], status;
    int fd = open("mutex", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(!pipe(tell) && fd >= 0 && !ftruncate(fd, 4096));
    pthread_mutex_t *mutexes[2] = {mutex_in(-1), mutex_in(fd)};
    for (int round = 0; round < ROUNDS / 2; round++) {
        int way = round % WAYS;
        pthread_mutex_t *mutex = mutexes[round / WAYS % 2];
        char byte;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            holds(mutex, way, tell[1]);
        CHECK(read(tell[0], &byte, 1) == 1);
        say("round %d: somebody %s", round, names[way]);
        if (way == IS_KILLED)
            CHECK(!kill(child, SIGKILL));
        struct timespec until;
        CHECK(!clock_gettime(CLOCK_REALTIME, &until));
        until.tv_sec += 20;
        CHECK(pthread_mutex_timedlock(mutex, &until) == EOWNERDEAD);
        CHECK(!pthread_mutex_consistent(mutex) && !pthread_mutex_unlock(mutex));
        CHECK(waitpid(child, &status, 0) == child);
        say("round %d: its owner had died", round);
    }
    say("ok");
    return 0;
}
