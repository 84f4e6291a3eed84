/* What lies in a terminal of the program's own and is read late: lines that were printed, their echoes, lines that were
 * typed, an unfinished one that is edited, an end of input, bytes typed in raw mode, a full terminal, one that ^S has
 * stopped, and one whose other end is closed. */
#include <sys/wait.h>

static int master, slave;

static void make(int raw)
{
    struct termios mode;
    master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0 && tcgetattr(slave, &mode) == 0);
    if (raw)
        cfmakeraw(&mode);
    CHECK(tcsetattr(slave, TCSANOW, &mode) == 0);
}

static void end(void)
{
    CHECK(close(slave) == 0 && close(master) == 0);
}

static void give(int fd, const char *text)
{
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* Until all of it has come: the kernel hands it over behind the write. */
static void take_bytes(int fd, char *to, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = read(fd, to + got, len - got);
        if (n < 0 && errno == EINTR)
            continue;
        CHECK(n > 0);
        got += n;
    }
}

static void take(int fd, const char *wanted)
{
    char text[200];
    size_t len = strlen(wanted);
    take_bytes(fd, text, len);
    if (memcmp(text, wanted, len))
        say("'%.*s' instead of '%s'", (int)len, text, wanted);
    CHECK(!memcmp(text, wanted, len));
}

static void is_quiet(int fd)
{
    struct pollfd one = {fd, POLLIN, 0};
    CHECK(poll(&one, 1, 0) == 0);
}

int main(void)
{
    char text[100], byte;
    static char large[8000], seen[sizeof large];
    for (int r = 1; r <= 6; r++) {
        make(0);
        give(slave, "one\ntwo\n");
        say("%d: printed", r);
        give(slave, "three\n");
        say("%d: and more", r);
        take(master, "one\r\ntw");
        say("%d: read a part of it", r);
        give(slave, "four");
        take(master, "o\r\nthree\r\nfour");
        is_quiet(master);

        give(master, "first\nsec");
        say("%d: typed", r);
        take(master, "first\r\nsec");
        give(master, "x\x7fond\nunfin\x04third, unfinisc\x7f");
        say("%d: and more", r);
        take(master, "x\b \bond\r\nunfinthird, unfinisc\b \b");
        take(slave, "first\n");
        say("%d: a line", r);
        CHECK(read(slave, text, sizeof text) == 7 && !memcmp(text, "second\n", 7));
        CHECK(read(slave, text, sizeof text) == 5 && !memcmp(text, "unfin", 5));
        is_quiet(slave);
        say("%d: all but the unfinished one", r);
        give(master, "hed\n\x04");
        say("%d: finished", r);
        take(slave, "third, unfinished\n");
        say("%d: only the end is left", r);
        CHECK(read(slave, text, sizeof text) == 0);
        is_quiet(slave);
        take(master, "hed\r\n");
        end();
        say("%d: the end", r);

        make(1);
        give(master, "abc\r\003");
        say("%d: typed raw", r);
        take(slave, "ab");
        say("%d: a part", r);
        give(master, "def");
        take(slave, "c\r\003d");
        say("%d: another", r);
        take(slave, "ef");
        is_quiet(slave), is_quiet(master);

        for (size_t i = 0; i < sizeof large; i++)
            large[i] = (char)mix(i + r);
        CHECK(write(slave, large, sizeof large) == sizeof large);
        say("%d: full", r);
        for (size_t got = 0; got < sizeof large;) {
            size_t part = got < 2000 ? 500 : sizeof large - got;
            take_bytes(master, seen + got, part);
            got += part;
            say("%d: read to %zu", r, got);
        }
        CHECK(!memcmp(seen, large, sizeof large));
        is_quiet(master);
        end();

        make(0);
        give(slave, "before");
        give(master, "\x13");
        usleep(2000);
        struct pollfd one = {slave, POLLOUT, 0};
        CHECK(poll(&one, 1, 0) == 0);
        say("%d: stopped", r);
        take(master, "before");
        say("%d: read what came before", r);
        CHECK(poll(&one, 1, 0) == 0);
        give(master, "\x11");
        CHECK(poll(&one, 1, 10000) == 1);
        give(slave, "after\n");
        say("%d: goes on", r);
        take(master, "after\r\n");
        give(slave, "last");
        CHECK(close(slave) == 0);
        say("%d: closed", r);
        take(master, "last");
        CHECK(read(master, &byte, 1) == -1 && errno == EIO);
        CHECK(close(master) == 0);
        say("%d: over", r);
    }
    say("ok");
    return 0;
}
