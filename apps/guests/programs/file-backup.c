/* A file is renamed to a backup and written anew, as editors and rotating logs
 * do it, many times without a word: kills send the program back to one and the
 * same commit, and each rollback must leave the file of that commit. */
#include <sys/stat.h>

static void put(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(close(fd) == 0);
}

static void get(const char *name, char *text, size_t size)
{
    int fd = open(name, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t n = read(fd, text, size - 1);
    CHECK(n >= 0);
    text[n] = 0;
    CHECK(close(fd) == 0);
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_nsec = ms * 1000000};
    nanosleep(&t, NULL);
}

int main(void)
{
    char text[64], want[64];
    put("notes", "notes 0");
    for (int r = 1; r <= ROUNDS; r++) {
        /* A kill here, after one behind the change, rolls back what was rolled back. */
        pause_ms(4);
        get("notes", text, sizeof text);
        snprintf(want, sizeof want, "notes %d", r - 1);
        CHECK(strcmp(text, want) == 0);
        CHECK(rename("notes", "notes~") == 0);
        snprintf(want, sizeof want, "notes %d", r);
        put("notes", want);
        pause_ms(4);
        say("round %d", r);
    }
    get("notes~", text, sizeof text);
    say("backup %s", text);
    say("ok");
    return 0;
}
