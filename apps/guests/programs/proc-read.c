/*
 * Files and directories of /proc and /sys read piece by piece: where one was read to, by one process and by two that share
 * a description; a file about the process itself that stays open; one read by a shell, which puts back what it took too much.
 */
#include <stdbool.h>
#include <sys/wait.h>

/* How each line begins, of a file that is read byte by byte. */
static void names(int round, int fd, int until)
{
    char line[256];
    size_t len = 0;
    int count = 0;
    for (char c; count < until && read(fd, &c, 1) == 1;) {
        if (c != '\n' && len < sizeof line - 1) {
            line[len++] = c;
            continue;
        }
        line[len] = 0;
        len = 0;
        say("%d %.20s", round, line);
        count++;
    }
}

static void folder(int round, const char *path)
{
    DIR *dir = opendir(path);
    CHECK(dir);
    char room[64];
    int fd = dirfd(dir), n = 0;
    for (ssize_t got; (got = syscall(SYS_getdents64, fd, room, sizeof room)) > 0;)
        for (ssize_t at = 0; at < got; at += ((struct dirent64 *)(room + at))->d_reclen)
            say("%d entry %d: %s", round, ++n, ((struct dirent64 *)(room + at))->d_name);
    closedir(dir);
}

/* The number in a status of a process. */
static int number(int fd)
{
    char text[4096];
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    ssize_t len = read(fd, text, sizeof text - 1);
    CHECK(len > 0);
    text[len] = 0;
    char *at = strstr(text, "\nPid:");
    CHECK(at);
    return atoi(at + 5);
}

/* A file about the process itself, opened long ago, against one that is opened now. (They tell the kernel's number.) */
static void kept_open(int round, int fd)
{
    for (int i = 0; i < 5; i++) {
        for (int tries = 0;; tries++) {
            int now = open("/proc/self/status", O_RDONLY);
            CHECK(now >= 0);
            bool same = number(now) == number(fd);
            close(now);
            if (same)
                break;
            /* A recovery may have fallen between the two, no more. */
            CHECK(tries < 20);
        }
        say("%d own", round);
    }
}

static void shared(int round)
{
    int fd = open("/proc/self/limits", O_RDONLY), status;
    CHECK(fd >= 0);
    names(round, fd, 3);
    pid_t child = fork();
    if (child == 0) {
        say("%d child", round);
        names(round, fd, 4);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    say("%d parent", round);
    names(round, fd, 4);
    close(fd);
}

static void by_shell(int round)
{
    int status;
    say("%d shell", round);
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/bash", "bash", "-c",
              "while read -r name rest; do echo \"$name\"; /bin/true; done < /proc/self/limits", (char *)NULL);
        _exit(127);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    int own = open("/proc/self/status", O_RDONLY), here = open("/proc/self", O_DIRECTORY | O_RDONLY);
    CHECK(own >= 0 && here >= 0);
    for (int round = 1; round <= 4; round++) {
        int fd = open("/proc/thread-self/limits", O_RDONLY);
        CHECK(fd >= 0);
        names(round, fd, 100);
        close(fd);
        fd = openat(here, "limits", O_RDONLY);
        CHECK(fd >= 0);
        names(round, fd, 5);
        kept_open(round, own);
        names(round, fd, 5);
        close(fd);
        folder(round, "/proc/self/attr");
        folder(round, "/sys/kernel/mm");
        shared(round);
        by_shell(round);
    }
    say("ok");
    return 0;
}
