/* Files that are open or mapped, and whose names go or change: a scratch file that is unlinked and mapped, a POSIX
 * semaphore that is unlinked, a file without a name from the beginning, and names that are moved. */
#include <semaphore.h>

#define PAGE 4096

static int create(const char *name, int len)
{
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && ftruncate(fd, len) == 0);
    return fd;
}

static void *map(int fd, int len, int how)
{
    void *at = mmap(0, len, PROT_READ | PROT_WRITE, how, fd, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

int main(void)
{
    struct stat st;
    char name[64];
    int scratch = create("scratch", PAGE);
    unsigned *shared = map(scratch, PAGE, MAP_SHARED);
    CHECK(close(scratch) == 0 && unlink("scratch") == 0);
    int other = create("scratch", PAGE); /* another file under its name */
    CHECK(pwrite(other, "somebody's", 10, 0) == 10 && close(other) == 0);
    int kept = create("kept", 2 * PAGE);
    char *copy = map(kept, 2 * PAGE, MAP_PRIVATE);
    CHECK(pwrite(kept, "the file", 8, PAGE) == 8 && unlink("kept") == 0);
    sprintf(name, "/dcrun-probe-%d", getpid());
    sem_t *lock = sem_open(name, O_CREAT | O_EXCL, 0600, 1);
    CHECK(lock != SEM_FAILED && sem_unlink(name) == 0);
    int loose = open(".", O_RDWR | O_TMPFILE, 0600);
    CHECK(loose >= 0 && ftruncate(loose, PAGE) == 0);
    unsigned *loose_at = map(loose, PAGE, MAP_SHARED);
    CHECK(mkdir("first", 0755) == 0);
    int moved = create("first/one", PAGE);
    unsigned *moved_at = map(moved, PAGE, MAP_SHARED);
    int link_fd = create("link-a", PAGE);
    CHECK(link("link-a", "link-b") == 0 && link("link-a", "link-c") == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        shared[r] = r;
        memcpy(copy + r * 20, "private", 7);
        loose_at[r] = r * 3;
        moved_at[r] = r * 5;
        say("round %d: stored", r);
        for (int i = 1; i <= r; i++)
            CHECK(shared[i] == (unsigned)i && loose_at[i] == 3u * i && moved_at[i] == 5u * i);
        CHECK(memcmp(copy + r * 20, "private", 7) == 0 && memcmp(copy + PAGE, "the file", 8) == 0);
        CHECK(sem_wait(lock) == 0);
        int value = -1;
        say("round %d: taken", r);
        CHECK(sem_getvalue(lock, &value) == 0 && value == 0);
        CHECK(sem_trywait(lock) == -1 && errno == EAGAIN && sem_post(lock) == 0);
        CHECK(fstat(kept, &st) == 0 && st.st_nlink == 0);
        CHECK(fstat(loose, &st) == 0 && st.st_nlink == 0);
        /* Names that move: the file's own, and the directory's above it. */
        const char *from = r % 2 ? "first" : "second", *to = r % 2 ? "second" : "first";
        CHECK(rename(from, to) == 0);
        char old[64], new[64];
        sprintf(old, "%s/%s", to, r % 3 == 1 ? "one" : r % 3 == 2 ? "two" : "three");
        sprintf(new, "%s/%s", to, r % 3 == 1 ? "two" : r % 3 == 2 ? "three" : "one");
        CHECK(rename(old, new) == 0);
        say("round %d: renamed", r);
        CHECK(pwrite(moved, &r, sizeof r, PAGE - sizeof r) == sizeof r);
        CHECK(stat(new, &st) == 0 && st.st_nlink == 1 && stat(old, &st) == -1);
        /* The name by which it was opened goes, another stays. */
        if (r == 4)
            CHECK(unlink("link-a") == 0 && unlink("link-c") == 0);
        CHECK(pwrite(link_fd, &r, sizeof r, 4 * r) == sizeof r);
        CHECK(fstat(link_fd, &st) == 0 && st.st_nlink == (r < 4 ? 3 : 1));
        /* A file that comes and goes in a round, and one that is opened after another took its name. */
        int brief = create("brief", PAGE);
        unsigned *at = map(brief, PAGE, MAP_SHARED);
        CHECK(close(brief) == 0 && rename("scratch", "brief") == 0);
        *at = r;
        say("round %d: replaced", r);
        CHECK(*at == (unsigned)r && munmap(at, PAGE) == 0);
        CHECK(rename("brief", "scratch") == 0);
    }
    char text[11] = "";
    int fd = open("scratch", O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, 10) == 10 && strcmp(text, "somebody's") == 0);
    say("ok");
    return 0;
}
