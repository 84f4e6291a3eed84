/* Files that one process has open while another one takes their last name: opened by a child by itself, inherited,
 * only mapped, replaced by a rename; on the file system of the home and on that of shared memory. */
#include <sys/wait.h>

#define PAGE 4096

static int create(const char *name, const char *text)
{
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0 && pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
    return fd;
}

static void meet(int to, int from)
{
    char c = 'x';
    CHECK(write(to, &c, 1) == 1);
    while (read(from, &c, 1) != 1)
        CHECK(errno == EINTR);
}

int main(void)
{
    int up[2], down[2], status;
    char text[32], far[64];
    CHECK(pipe(up) == 0 && pipe(down) == 0);
    sprintf(far, "/dev/shm/dcrun-probe-%d", getpid());
    int inherited = create("inherited", "inherited");
    CHECK(close(create("own", "own")) == 0 && close(create("mapped", "mapped")) == 0);
    CHECK(close(create("replaced", "replaced")) == 0 && close(create(far, "far")) == 0);
    pid_t child = fork();
    if (child == 0) {
        int own = open("own", O_RDWR), replaced = open("replaced", O_RDONLY), elsewhere = open(far, O_RDWR);
        int fd = open("mapped", O_RDWR);
        char *map = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(own >= 0 && replaced >= 0 && elsewhere >= 0 && map != MAP_FAILED && close(fd) == 0);
        meet(up[1], down[0]);
        for (int r = 1; r <= ROUNDS; r++) {
            struct stat st;
            CHECK(pread(own, text, 3, 0) == 3 && memcmp(text, "own", 3) == 0);
            CHECK(pread(inherited, text, 9, 0) == 9 && memcmp(text, "inherited", 9) == 0);
            CHECK(pread(replaced, text, 8, 0) == 8 && memcmp(text, "replaced", 8) == 0);
            CHECK(pread(elsewhere, text, 3, 0) == 3 && memcmp(text, "far", 3) == 0);
            CHECK(memcmp(map, "mapped", 6) == 0 && fstat(own, &st) == 0 && st.st_nlink == 0);
            CHECK(r == 1 || (pread(own, text, 4, 100) == 4 && atoi(text) == r - 1 && map[100] == r - 1));
            sprintf(text, "%04d", r);
            CHECK(pwrite(own, text, 4, 100) == 4 && pwrite(elsewhere, text, 4, 100) == 4);
            map[100] = r;
            say("round %d", r);
            compute(200);
        }
        exit(7);
    }
    CHECK(child > 0 && close(inherited) == 0);
    char c;
    CHECK(read(up[0], &c, 1) == 1);
    CHECK(unlink("own") == 0 && unlink("inherited") == 0 && unlink("mapped") == 0 && unlink(far) == 0);
    CHECK(close(create("new", "new")) == 0 && rename("new", "replaced") == 0);
    say("removed");
    CHECK(write(down[1], &c, 1) == 1);
    CHECK(waitpid(child, &status, 0) == child);
    say("status %d, own is %s", WEXITSTATUS(status), access("own", F_OK) ? "gone" : "there");
    return 0;
}
