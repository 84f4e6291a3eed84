/*
 * What is open already, opened once more by its link in /dev/fd or /proc/self/fd: another
 * description of the same pipe or file.
 */
#include <sys/wait.h>

static int again(const char *dir, int fd, int flags)
{
    char link[64];
    snprintf(link, sizeof link, "%s/%d", dir, fd);
    return open(link, flags | O_CLOEXEC);
}

static void pipes(int round)
{
    int ends[2], status;
    char got[64] = "";
    CHECK(pipe(ends) == 0);
    int from = again("/dev/fd", ends[0], O_RDONLY), to = again("/proc/self/fd", ends[1], O_WRONLY);
    CHECK(from >= 0 && to >= 0);
    CHECK(write(ends[1], "one ", 4) == 4 && write(to, "two ", 4) == 4);
    say("%d written", round);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(read(from, got, 4) == 4);
        say("%d child: %s", round, got);
        CHECK(write(to, "three ", 6) == 6);
        say("%d child has written", round);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(close(ends[1]) == 0 && close(to) == 0);
    say("%d closed for writing", round);
    ssize_t n = read(ends[0], got, 4);
    say("%d read %.*s", round, (int)n, got);
    n = read(from, got, sizeof got);
    say("%d read %.*s, then %zd", round, (int)n, got, read(from, got, 1));
    close(ends[0]);
    close(from);
}

static void files(int round)
{
    char got[64] = "";
    int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, "0123456789", 10) == 10);
    int other = again(round % 2 ? "/dev/fd" : "/proc/self/fd", fd, O_RDWR);
    CHECK(other >= 0);
    say("%d offsets %ld %ld", round, (long)lseek(fd, 0, SEEK_CUR), (long)lseek(other, 0, SEEK_CUR));
    for (int i = 0; i < 4; i++) {
        CHECK(read(other, got, 1) == 1);
        got[0] += 1;
        CHECK(write(other, got, 1) == 1);
        ssize_t n = pread(fd, got, 10, 0);
        say("%d file %.*s", round, (int)n, got);
    }
    CHECK(ftruncate(other, 5) == 0);
    say("%d offsets %ld %ld", round, (long)lseek(fd, 0, SEEK_CUR), (long)lseek(other, 0, SEEK_CUR));
    close(other);
    other = again("/proc/self/fd", fd, O_WRONLY | O_TRUNC);
    CHECK(other >= 0);
    ssize_t n = pread(fd, got, 10, 0);
    say("%d cut: %zd", round, n);
    CHECK(write(other, "end", 3) == 3);
    say("%d size %ld", round, (long)lseek(fd, 0, SEEK_END));
    close(other);
    close(fd);
}

int main(void)
{
    for (int round = 0; round < 3; round++) {
        pipes(round);
        files(round);
    }
    return 0;
}
