/*
 * No signal breaks off what never waits for others: the opening of a file, fsync(2) and its
 * like, a futex(2) that wakes. Programs are not ready for EINTR there.
 */
#include <linux/futex.h>

static volatile sig_atomic_t seen;

static void count(int sig)
{
    (void)sig;
    seen++;
}

int main(void)
{
    struct sigaction act = {.sa_handler = count};
    struct itimerval often = {{0, 150}, {0, 150}}, never = {{0, 0}, {0, 0}};
    int word = 0;
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    for (int round = 0; round < 8; round++) {
        CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
        for (int i = 0; i < 150; i++) {
            int fd = open("file", O_RDWR | O_CREAT, 0600);
            CHECK(fd >= 0 && pwrite(fd, &i, 4, 4 * i) == 4);
            CHECK(fdatasync(fd) == 0 && fsync(fd) == 0 && close(fd) == 0);
            fd = open(".", O_RDONLY | O_DIRECTORY);
            CHECK(fd >= 0 && close(fd) == 0);
            fd = open("file", O_RDONLY);
            CHECK(fd >= 0 && close(fd) == 0);
            for (int turn = 0; turn < 20; turn++)
                CHECK(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0);
        }
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
        say("%d: signals came: %s", round, seen > 0 ? "yes" : "no");
    }
    return 0;
}
