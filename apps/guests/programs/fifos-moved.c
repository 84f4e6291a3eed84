/*
 * Fifos of two processes, with bytes in them, whose names change, and go while they are open: both go on with the same
 * fifo. Another one of the same name is another one.
 */
#include <sys/stat.h>
#include <sys/wait.h>

static void put(int fd, const char *text)
{
    size_t len = strlen(text);
    CHECK(write(fd, text, len) == (ssize_t)len);
}

/* So many bytes, and says which. */
static void take(int fd, const char *which, int round, int count)
{
    char text[64];
    int got = 0;
    while (got < count) {
        int r = read(fd, text + got, count - got);
        CHECK(r > 0);
        got += r;
    }
    text[got] = 0;
    say("round %d: %s gives %s", round, which, text);
}

static void answers(int word, int answer)
{
    char round, text[64];
    while (read(word, &round, 1) == 1) {
        /* By its name, which its maker takes away. */
        int fd = open("second", O_RDWR);
        CHECK(fd >= 0);
        put(answer, "o");
        CHECK(read(word, &round, 1) == 1);
        CHECK(read(fd, text, 6) == 6);
        text[6] = 0;
        put(fd, "back");
        put(answer, strncmp(text, "moved", 5) == 0 ? "y" : "n");
        CHECK(read(word, &round, 1) == 1);
        CHECK(!close(fd));
        put(answer, "c");
    }
    _exit(0);
}

static void told(int answer, char what)
{
    char c;
    CHECK(read(answer, &c, 1) == 1 && c == what);
}

int main(void)
{
    int word[2], answer[2], status;
    char text[64];
    struct stat st, other;
    CHECK(!pipe(word) && !pipe(answer));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(!close(word[1]));
        answers(word[0], answer[1]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(!mkfifo("first", 0600));
        int fd = open("first", O_RDWR);
        CHECK(fd >= 0);
        snprintf(text, sizeof text, "moved%c", 'a' + round % 26);
        put(fd, text);
        say("round %d: first holds six", round);
        CHECK(!rename("first", "second"));
        say("round %d: it is called second", round);
        put(word[1], "a");
        told(answer[0], 'o');
        say("round %d: both have it", round);
        CHECK(!unlink("second"));
        CHECK(!fstat(fd, &st) && st.st_nlink == 0 && S_ISFIFO(st.st_mode));
        say("round %d: it has %d names", round, (int)st.st_nlink);
        CHECK(!mkfifo("second", 0640) && !stat("second", &other) && other.st_nlink == 1);
        say("round %d: there is another one", round);
        put(word[1], "b");
        told(answer[0], 'y');
        take(fd, "the old one", round, 4);
        put(fd, "left");
        say("round %d: it holds what nobody reads", round);
        put(word[1], "c");
        told(answer[0], 'c');
        take(fd, "the old one", round, 4);
        CHECK(!close(fd) && !unlink("second"));
        say("round %d: closed", round);
    }
    CHECK(!close(word[1]) && waitpid(child, &status, 0) == child && status == 0);
    say("ok");
    return 0;
}
