/* A mapping of a file gives no more rights than the descriptor had with which it was made, however long that is closed;
 * and a change of protection ends at the first place that forbids it, with what lies before it changed. */
#include <setjmp.h>

#define PAGE 4096

static sigjmp_buf back;

static void fault(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static int can_store(volatile char *at)
{
    if (sigsetjmp(back, 1))
        return 0;
    *at = *at;
    return 1;
}

static int refused(int result)
{
    return result == 0 ? 0 : errno;
}

int main(void)
{
    struct sigaction action = {.sa_handler = fault};
    CHECK(sigaction(SIGSEGV, &action, 0) == 0);
    int fd = open("rights", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0);
    int reader = open("rights", O_RDONLY), writer = open("rights", O_WRONLY);
    char *both = mmap(0, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    char *only = mmap(0, 2 * PAGE, PROT_READ, MAP_SHARED, reader, 0);
    char *copy = mmap(0, 2 * PAGE, PROT_READ, MAP_PRIVATE, reader, 0);
    CHECK(both != MAP_FAILED && only != MAP_FAILED && copy != MAP_FAILED);
    CHECK(close(fd) == 0);
    char *three = mmap(0, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(three != MAP_FAILED && munmap(three + 2 * PAGE, PAGE) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        int shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED ? errno : 0;
        int unread = mmap(0, PAGE, PROT_WRITE, MAP_SHARED, writer, 0) == MAP_FAILED ? errno : 0;
        int closed = mmap(0, 0, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0;
        say("round %d: maps %d %d %d", r, shared, unread, closed);
        say("round %d: protects %d %d %d %d", r, refused(mprotect(only, PAGE, PROT_READ | PROT_WRITE)),
            refused(mprotect(only + PAGE, PAGE, PROT_WRITE)), refused(mprotect(both, PAGE, PROT_READ | PROT_WRITE)),
            refused(mprotect(copy, PAGE, PROT_READ | PROT_WRITE)));
        CHECK(!can_store(only) && !can_store(only + PAGE) && can_store(both) && can_store(copy));
        both[8] = r;
        CHECK(only[8] == r && !can_store(both + PAGE));
        /* Over a hole. */
        int hole = refused(mprotect(three, 4 * PAGE, PROT_READ | PROT_WRITE));
        CHECK(can_store(three) && can_store(three + PAGE) && !can_store(three + 3 * PAGE));
        three[PAGE] = r;
        say("round %d: hole %d, %d", r, hole, three[PAGE]);
        CHECK(can_store(three + PAGE) && three[PAGE] == r);
        CHECK(mprotect(three, 2 * PAGE, PROT_READ) == 0 && !can_store(three));
        CHECK(mprotect(both, PAGE, PROT_READ) == 0 && mprotect(copy, PAGE, PROT_READ) == 0);
        compute(20);
    }
    CHECK(unlink("rights") == 0);
    say("ok");
    return 0;
}
