/* A lock whose file is closed while a mapping of it goes on: the mapping keeps the lock. (So does the Java machine with the
 * file that its counters lie in.) */
#include <sys/file.h>
#include <sys/wait.h>

static int is_locked(const char *name, int by)
{
    int fd = open(name, O_RDWR);
    struct flock all = {.l_type = F_WRLCK};
    CHECK(fd >= 0);
    int r = by == 0 ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, F_OFD_SETLK, &all);
    CHECK(r == 0 || errno == EWOULDBLOCK);
    CHECK(!close(fd));
    return r != 0;
}

static int *locked_mapping(const char *name, int by)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct flock all = {.l_type = F_WRLCK};
    CHECK(fd >= 0 && !ftruncate(fd, 16384));
    CHECK(by == 0 ? !flock(fd, LOCK_EX | LOCK_NB) : !fcntl(fd, F_OFD_SETLK, &all));
    int *at = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED && !close(fd));
    return at;
}

int main(void)
{
    for (int round = 0; round < ROUNDS / 3; round++) {
        int *first = locked_mapping("counted", 0), *second = locked_mapping("described", 1);
        for (int i = 1; i <= 3; i++) {
            first[0]++;
            second[2000]++;
            CHECK(is_locked("counted", 0) && is_locked("described", 1));
            say("round %d: %d and %d, both locked", round, first[0], second[2000]);
        }
        /* The last that has it ends. */
        int status;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(0);
        CHECK(!munmap(first, 16384) && !munmap(second, 16384));
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(!is_locked("counted", 0) && !is_locked("described", 1));
        say("round %d: nothing is locked", round);
    }
    CHECK(!unlink("counted") && !unlink("described"));
    say("ok");
    return 0;
}
