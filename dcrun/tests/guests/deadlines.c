/* Waits 2.4 s from "ready" on, by the call that its argument names. What it asks of the clock, and prints of chance, lies
 * before and between, so that a rollback would begin the wait anew. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const struct timespec SPAN = {2, 400000000};
static int unused_pipe[2];

static struct timespec later(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += SPAN.tv_sec;
    t.tv_nsec += SPAN.tv_nsec;
    if (t.tv_nsec >= 1000000000)
        t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static volatile int rang;
static void ring(int sig) { rang = sig; }

static void catch(void)
{
    struct sigaction act = {.sa_handler = ring};
    sigaction(SIGALRM, &act, 0);
    sigset_t alarm_set;
    sigemptyset(&alarm_set);
    sigaddset(&alarm_set, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_set, 0);
}

static void await_ring(void)
{
    sigset_t none;
    sigemptyset(&none);
    while (!rang)
        sigsuspend(&none);
}

static void *other(void *x)
{
    for (;;) {
        struct timespec brief = {0, 90000000};
        nanosleep(&brief, 0);
        char c;
        getrandom(&c, 1, 0);
        if (write(2, "", 0) < 0)
            return x;
    }
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
#define IS(name) (strcmp(kind, name) == 0)
    char chance[4];
    struct timespec rest = SPAN, until;
    if (pipe(unused_pipe))
        return 2;
    struct pollfd one = {unused_pipe[0], POLLIN, 0};
    struct epoll_event event = {.events = EPOLLIN};
    int set = epoll_create1(0);
    epoll_ctl(set, EPOLL_CTL_ADD, unused_pipe[0], &event);
    fd_set reads;
    FD_ZERO(&reads);
    FD_SET(unused_pipe[0], &reads);
    catch();
    if (getrandom(chance, 4, 0) != 4 || write(1, "ready\n", 6) != 6)
        return 2;
    if (IS("nanosleep")) nanosleep(&rest, 0);
    else if (IS("clock_nanosleep")) clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, 0);
    else if (IS("clock_nanosleep_until")) until = later(CLOCK_MONOTONIC), clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
    else if (IS("clock_nanosleep_real")) until = later(CLOCK_REALTIME), clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, 0);
    else if (IS("poll")) poll(&one, 1, 2400);
    else if (IS("ppoll")) ppoll(&one, 1, &rest, 0);
    else if (IS("select")) {
        struct timeval left = {2, 400000};
        if (select(unused_pipe[0] + 1, &reads, 0, 0, &left) || FD_ISSET(unused_pipe[0], &reads) || left.tv_sec || left.tv_usec)
            return 3;
    } else if (IS("pselect")) pselect(unused_pipe[0] + 1, &reads, 0, 0, &rest, 0);
    else if (IS("epoll_wait")) epoll_wait(set, &event, 1, 2400);
    else if (IS("epoll_pwait")) {
        sigset_t all;
        sigfillset(&all);
        epoll_pwait(set, &event, 1, 2400, &all);
    } else if (IS("epoll_pwait2")) syscall(SYS_epoll_pwait2, set, &event, 1, &rest, 0, 0);
    else if (IS("futex")) {
        int word = 0;
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &rest, 0, 0);
    } else if (IS("cond")) {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
        pthread_mutex_lock(&mutex);
        until = later(CLOCK_REALTIME);
        while (pthread_cond_timedwait(&cond, &mutex, &until) != ETIMEDOUT)
            ;
    } else if (IS("semaphore")) {
        sem_t semaphore;
        sem_init(&semaphore, 0, 0);
        until = later(CLOCK_MONOTONIC);
        while (sem_clockwait(&semaphore, CLOCK_MONOTONIC, &until) == -1 && errno != ETIMEDOUT)
            ;
    } else if (IS("sigtimedwait")) {
        sigset_t usr;
        sigemptyset(&usr);
        sigaddset(&usr, SIGUSR1);
        sigtimedwait(&usr, 0, &rest);
    } else if (IS("setitimer")) {
        struct itimerval span = {{0, 0}, {2, 400000}};
        setitimer(ITIMER_REAL, &span, 0);
        await_ring();
    } else if (IS("timer_create")) {
        timer_t timer;
        struct itimerspec span = {{0, 0}, SPAN};
        if (timer_create(CLOCK_MONOTONIC, 0, &timer) || timer_settime(timer, 0, &span, 0))
            return 3;
        await_ring();
    } else if (IS("timerfd")) {
        struct itimerspec span = {{0, 0}, SPAN};
        uint64_t count;
        int fd = timerfd_create(CLOCK_MONOTONIC, 0);
        timerfd_settime(fd, 0, &span, 0);
        if (read(fd, &count, 8) != 8 || count != 1)
            return 3;
    } else if (IS("poll-loop")) {
        /* As event loops do it: each wait is as long as the clock says. */
        double end = now() + 2.4;
        while (now() < end)
            poll(&one, 1, (int)((end - now()) * 1000) + 1);
    } else if (IS("threads")) {
        pthread_t thread;
        pthread_create(&thread, 0, other, 0);
        nanosleep(&rest, 0);
    } else
        return 2;
    return write(1, "end\n", 4) != 4;
}
