/* Calls that move bytes from one descriptor to another, in processes beside one whose output commits all the time:
 * wherever a commit falls, no byte comes twice and none is left out. */
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { LONG = 96 * 1024, PIECE = 1500, LINES = 12, CHILDREN = 4 };
static int from, to, ends[2];
static off_t at, to_at;

static long by_sendfile(void) { return sendfile(to, from, &at, PIECE); }
static long by_sendfile_on(void) { return sendfile(to, from, NULL, PIECE); }
static long by_copy(void) { return copy_file_range(from, NULL, to, NULL, PIECE, 0); }
static long by_copy_at(void) { return copy_file_range(from, &at, to, &to_at, PIECE, 0); }
static long by_splice(void)
{
    long in = splice(from, &at, ends[1], NULL, PIECE, 0);
    for (long left = in, out; left > 0; left -= out)
        CHECK((out = splice(ends[0], NULL, to, &to_at, left, 0)) > 0);
    return in;
}
static long by_splice_on(void)
{
    long in = splice(from, NULL, ends[1], NULL, PIECE, 0);
    for (long left = in, out; left > 0; left -= out)
        CHECK((out = splice(ends[0], NULL, to, NULL, left, 0)) > 0);
    return in;
}
/* A pipe of a page takes less than is offered, and says so. */
static long by_short_write(void)
{
    static char bytes[2 * 4096], back[4096];
    long in = pread(from, bytes, sizeof bytes, at), took = write(ends[1], bytes, in), out = 0;
    CHECK(took > 0 || in == 0);
    while (out < took) {
        long n = read(ends[0], back, sizeof back);
        CHECK(n > 0 && write(to, back, n) == n);
        out += n;
    }
    char rest;
    CHECK(read(ends[0], &rest, 1) == -1 && errno == EAGAIN);
    at += took;
    return took;
}

static const struct way {
    const char *name;
    long (*move)(void);
} ways[] = {
    {"sendfile", by_sendfile}, {"sendfile, the file's own position", by_sendfile_on},
    {"copy_file_range", by_copy}, {"copy_file_range, places of the program's", by_copy_at},
    {"splice", by_splice}, {"splice, the files' own positions", by_splice_on},
    {"a write of which a part fits", by_short_write},
};

static char original[LONG], copy[2 * LONG];

static const char *name_of(int child)
{
    static char name[16];
    snprintf(name, sizeof name, "to-%d", child);
    return name;
}

static void move_all(const struct way *way, int child)
{
    long moved = 0, n;
    from = open("from", O_RDONLY);
    to = open(name_of(child), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(from >= 0 && to >= 0 && !pipe(ends));
    if (way->move == by_short_write) {
        fcntl(ends[1], F_SETPIPE_SZ, 4096);
        CHECK(!fcntl(ends[0], F_SETFL, O_NONBLOCK) && !fcntl(ends[1], F_SETFL, O_NONBLOCK));
    }
    while ((n = way->move()) > 0)
        moved += n;
    CHECK(n == 0 && moved == LONG);
    CHECK(pread(to, copy, sizeof copy, 0) == LONG && !memcmp(copy, original, LONG));
}

int main(void)
{
    for (int i = 0; i < LONG; i++)
        original[i] = mix(i / 8) >> i % 8 * 8;
    from = open("from", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(write(from, original, LONG) == LONG);
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        pid_t children[CHILDREN];
        for (int child = 0; child < CHILDREN; child++)
            if ((children[child] = fork()) == 0) {
                move_all(&ways[i], child);
                _exit(7);
            }
        for (int line = 0; line < LINES; line++)
            say("%s: %d", ways[i].name, line);
        for (int child = 0; child < CHILDREN; child++) {
            int status;
            CHECK(waitpid(children[child], &status, 0) == children[child] && WEXITSTATUS(status) == 7);
            CHECK(!unlink(name_of(child)));
        }
        say("%s: the same", ways[i].name);
    }
    CHECK(!unlink("from"));
    say("ok");
    return 0;
}
