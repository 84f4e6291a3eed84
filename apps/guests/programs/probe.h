/* What every probe begins with: one line a fact, written at once, and a check that stops at the first lie. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/auxv.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 30

#define CHECK(fact)                                                                                \
    do {                                                                                           \
        if (!(fact)) {                                                                             \
            say("line %d: not so: %s (errno %d)", __LINE__, #fact, errno);                         \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* One line, one write: the harness compares the bytes. errno stays what it was. */
__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
    int saved = errno;
    char line[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    line[len++] = '\n';
    for (int done = 0; done < len;) {
        ssize_t count = write(1, line + done, len - done);
        if (count < 0 && errno != EINTR)
            _exit(2);
        if (count > 0)
            done += count;
    }
    errno = saved;
}

__attribute__((unused)) static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

__attribute__((unused)) static uint64_t checksum(const void *bytes, size_t len)
{
    uint64_t sum = len;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3ULL;
    return sum;
}

__attribute__((unused)) static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* Some time passes without a system call, so that a kill can fall into plain computing. */
__attribute__((unused)) static uint64_t compute(int amount)
{
    static volatile uint64_t sum;
    for (int i = 0; i < amount * 1000; i++)
        sum = mix(sum + i);
    return sum;
}
