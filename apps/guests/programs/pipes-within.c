/*
 * Pipes and a fifo between two processes: what one has written and the other has not read yet is there once, in its order,
 * whatever is committed or lost between the two.
 */
#include <sys/stat.h>
#include <sys/wait.h>

enum { LINES = 5 };

static void all(int fd, const char *text)
{
    size_t len = strlen(text);
    CHECK(write(fd, text, len) == (ssize_t)len);
}

/* So many lines, byte by byte: nothing is taken that is not asked for. */
static void lines(int fd, char *to, int count)
{
    while (count > 0) {
        CHECK(read(fd, to, 1) == 1);
        count -= *to++ == '\n';
    }
    *to = 0;
}

/* Upon each word reads lines from the pipe and the fifo, and answers with both. */
static void answers(int word, int pipe_end, int fifo, int answer)
{
    char which, text[512], other[512];
    while (read(word, &which, 1) == 1) {
        lines(pipe_end, text, LINES);
        lines(fifo, other, LINES);
        all(answer, text);
        all(answer, other);
    }
    _exit(0);
}

int main(void)
{
    int word[2], data[2], answer[2], status;
    CHECK(!pipe(word) && !pipe(data) && !pipe(answer) && !mkfifo("fifo", 0600));
    int fifo = open("fifo", O_RDWR);
    CHECK(fifo >= 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(!close(word[1]));
        answers(word[0], data[0], fifo, answer[1]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        char expected[512] = "", seen[512], text[64];
        for (int way = 0; way < 2; way++)
            for (int i = 0; i < LINES; i++) {
                snprintf(text, sizeof text, "%s %d.%d\n", way ? "fifo" : "pipe", round, i);
                all(way ? fifo : data[1], text);
                strcat(expected, text);
                say("round %d: %s holds %d", round, way ? "fifo" : "pipe", i + 1);
            }
        /* (They lie there for a while.) */
        usleep(1000);
        all(word[1], "x");
        lines(answer[0], seen, 2 * LINES);
        CHECK(strcmp(seen, expected) == 0);
        say("round %d: came as they were sent", round);
    }
    CHECK(!close(word[1]) && waitpid(child, &status, 0) == child && status == 0);
    CHECK(!unlink("fifo"));
    say("ok");
    return 0;
}
