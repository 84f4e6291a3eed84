/* Which files an exec takes, with which arguments, and which errors it gives: none of them touches the caller. */
#include <sys/wait.h>

static char *self;

static void make(const char *name, const char *text, mode_t mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(fchmod(fd, mode) == 0 && close(fd) == 0);
}

static void fails(int line, int error, const char *path, char **argv)
{
    static char *environment[] = {"A=b", NULL};
    errno = 0;
    execve(path, argv, environment);
    if (errno != error)
        say("line %d: errno %d, not %d", line, errno, error), exit(1);
}

/* In a child: its status says how many arguments it got, and it says what they are. */
static int runs(int dir, const char *path, char **argv, int flags)
{
    static char *environment[] = {"A=b", NULL};
    pid_t child = fork();
    if (child == 0) {
        syscall(SYS_execveat, dir, path, argv, environment, flags);
        _exit(100 + errno);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int argc, char **argv)
{
    if (argc == 0 || getenv("A")) {
        char text[400] = {0};
        for (int i = 1; i < argc && i < 9; i++)
            snprintf(text + strlen(text), 40, " %.30s", strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i]);
        const char *name = (char *)getauxval(AT_EXECFN);
        if (argc > 900)
            strcpy(text, " many");
        say("%d:%s, called %s", argc, text, strncmp(name, "/dev/fd/", 8) && strrchr(name, '/') ? strrchr(name, '/') + 1 : name);
        return argc < 50 ? argc : 50;
    }
    self = argv[0];
    char line[5000], link[PATH_MAX], *none[] = {"none", NULL};
    CHECK(realpath(self, link));
    if (mkdir("d", 0700) < 0)
        CHECK(errno == EEXIST);
    make("text", "echo no\n", 0700);
    make("empty", "", 0700);
    make("forbidden", "#!/bin/sh\n", 0600);
    make("return", "#!/bin/sh\r\n", 0700);
    make("blank", "#!  \t \n", 0700);
    make("missing", "#!/not/there\n", 0700);
    snprintf(line, sizeof line, "#!%s \t one argument  \nrest\n", link);
    make("s1", line, 0700);
    for (int i = 2; i <= 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", i);
        snprintf(line, sizeof line, "#!./s%d -%d\n", i - 1, i);
        make(name, line, 0700);
    }
    static char huge[131073], *many[400000];
    memset(huge, 'x', 131072);
    for (int r = 1; r <= 4; r++) {
        fails(__LINE__, ENOENT, "absent", none);
        fails(__LINE__, ENOENT, "", none);
        fails(__LINE__, EACCES, "d", none);
        fails(__LINE__, EACCES, "/dev/null", none);
        fails(__LINE__, ENOTDIR, "text/x", none);
        fails(__LINE__, EACCES, "forbidden", none);
        fails(__LINE__, ENOEXEC, "text", none);
        fails(__LINE__, ENOEXEC, "empty", none);
        fails(__LINE__, ENOENT, "return", none);
        fails(__LINE__, ENOEXEC, "blank", none);
        fails(__LINE__, ENOENT, "missing", none);
        fails(__LINE__, ELOOP, "s6", none);
        fails(__LINE__, EFAULT, self, (char **)8);
        fails(__LINE__, E2BIG, self, (char *[]){"x", huge, NULL});
        for (int i = 0; i < 399999; i++)
            many[i] = "0123456789";
        fails(__LINE__, E2BIG, self, many);
        say("round %d: errors", r);
        huge[131071] = 0;
        CHECK(runs(AT_FDCWD, self, (char *[]){"x", huge, NULL}, 0) == 2);
        huge[131071] = 'x';
        many[50000] = NULL;
        CHECK(runs(AT_FDCWD, self, many, 0) == 50);
        CHECK(runs(AT_FDCWD, "./s5", (char *[]){"name", "last", NULL}, 0) == 12);
        CHECK(runs(AT_FDCWD, "s1", NULL, 0) == 3);
        int dir = open(".", O_RDONLY | O_DIRECTORY), fd = open(self, O_RDONLY | O_CLOEXEC);
        int script = open("s1", O_RDONLY | O_CLOEXEC);
        CHECK(dir >= 0 && fd >= 0 && script >= 0);
        CHECK(runs(dir, "s2", (char *[]){"name", NULL}, 0) == 5);
        CHECK(runs(fd, "", none, AT_EMPTY_PATH) == 1);
        CHECK(runs(script, "", none, AT_EMPTY_PATH) == 100 + ENOENT);
        CHECK(runs(fd, "", none, 0) == 100 + ENOENT);
        CHECK(runs(fd, "", none, AT_EMPTY_PATH | 1) == 100 + EINVAL);
        CHECK(runs(AT_FDCWD, "/proc/self/exe", none, AT_SYMLINK_NOFOLLOW) == 100 + ELOOP);
        CHECK(close(dir) == 0 && close(fd) == 0 && close(script) == 0);
        say("round %d: programs", r);
    }
    say("ok");
    return 0;
}
