/* More than a terminal of the program's own has room for, in both directions: whoever writes waits for whoever reads. */
#include <sys/uio.h>
#include <sys/wait.h>

enum { LONG = 100000 };
static char text[LONG], seen[LONG];

static void take_all(int fd, size_t part)
{
    for (size_t got = 0; got < LONG;) {
        ssize_t n = read(fd, seen + got, part < LONG - got ? part : LONG - got);
        CHECK(n > 0);
        got += n;
    }
    CHECK(!memcmp(seen, text, LONG));
}

static pid_t spawned(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

static void join(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    struct termios mode;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0 && tcgetattr(slave, &mode) == 0);
    cfmakeraw(&mode);
    CHECK(tcsetattr(slave, TCSANOW, &mode) == 0);
    for (int r = 1; r <= 8; r++) {
        for (int i = 0; i < LONG; i++)
            text[i] = (char)mix(i + r);
        pid_t child = spawned();
        if (child == 0) {
            struct iovec parts[2] = {{text, 70000}, {text + 70000, LONG - 70000}};
            CHECK((r % 2 ? write(slave, text, LONG) : writev(slave, parts, 2)) == LONG);
            _exit(0);
        }
        take_all(master, r % 3 ? 65536 : 777);
        join(child);
        say("%d: printed", r);
        child = spawned();
        if (child == 0) {
            take_all(slave, r % 3 ? 4096 : 777);
            _exit(0);
        }
        CHECK(write(master, text, LONG) == LONG);
        join(child);
        say("%d: typed", r);
    }
    say("ok");
    return 0;
}
