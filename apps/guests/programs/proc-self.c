/* What /proc says of the process itself, by every call that reads it; and an exec of /proc/self/exe in a child. */
#include <sys/wait.h>

static struct stat file;
static char exe[PATH_MAX];

static void look(const char *link)
{
    char text[PATH_MAX] = {0};
    struct stat st;
    struct statx stx;
    CHECK(readlink(link, text, sizeof text - 1) > 0 && strcmp(text, exe) == 0);
    CHECK(stat(link, &st) == 0 && st.st_ino == file.st_ino && st.st_dev == file.st_dev);
    CHECK(fstatat(AT_FDCWD, link, &st, 0) == 0 && st.st_ino == file.st_ino);
    CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(statx(AT_FDCWD, link, 0, STATX_INO, &stx) == 0 && stx.stx_ino == file.st_ino);
    CHECK(access(link, X_OK) == 0 && faccessat(AT_FDCWD, link, R_OK, 0) == 0);
    int fd = open(link, O_RDONLY);
    CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == file.st_ino && close(fd) == 0);
}

static size_t slurp(const char *path, char *to, size_t room)
{
    int fd = open(path, O_RDONLY);
    size_t len = 0;
    CHECK(fd >= 0);
    for (ssize_t n; (n = read(fd, to + len, room - len)) > 0;)
        len += n;
    CHECK(close(fd) == 0);
    return len;
}

static void command(const char *path, int argc, char **argv)
{
    static char text[1 << 16];
    size_t len = slurp(path, text, sizeof text), at = 0;
    for (int i = 0; i < argc; at += strlen(argv[i++]) + 1)
        CHECK(at + strlen(argv[i]) < len && strcmp(text + at, argv[i]) == 0);
    CHECK(at == len);
}

int main(int argc, char **argv)
{
    char path[64], text[256] = {0};
    CHECK(realpath(argv[argc > 1 ? 2 : 0], exe) && stat(exe, &file) == 0);
    if (argc > 1) {
        look("/proc/self/exe");
        command("/proc/self/cmdline", argc, argv);
        return strcmp(argv[1], "child") != 0;
    }
    for (int r = 1; r <= 6; r++) {
        look("/proc/self/exe");
        look("/proc/thread-self/exe");
        snprintf(path, sizeof path, "/proc/%d/exe", getpid());
        look(path);
        snprintf(path, sizeof path, "/proc/self/task/%d/exe", gettid());
        look(path);
        char link[PATH_MAX] = {0};
        CHECK(readlinkat(AT_FDCWD, "/proc/self/exe", link, PATH_MAX - 1) > 0 && strcmp(link, exe) == 0);
        CHECK(readlink("/proc/self/exe", link, 3) == 3 && readlink("/proc/self/exe", link, 0) < 0);
        command("/proc/self/cmdline", argc, argv);
        snprintf(path, sizeof path, "/proc/%d/cmdline", getpid());
        command(path, argc, argv);
        size_t len = slurp("/proc/self/environ", text, 20);
        CHECK(len > 5 && strchr(text, '='));
        len = slurp("/proc/self/comm", text, sizeof text);
        text[len - 1] = 0;
        CHECK(strncmp(strrchr(exe, '/') + 1, text, 15) == 0);
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "named", "child", exe, (char *)NULL);
            _exit(3);
        }
        int status;
        while (waitpid(child, &status, 0) < 0)
            CHECK(errno == EINTR);
        CHECK(status == 0);
        say("round %d: it is what it is", r);
    }
    say("ok");
    return 0;
}
