/*
 * flock(2) belongs to the open file description: a child takes it and ends, another one
 * gives it back, and a program that was started with a copy closed does not have it.
 */
#include <sys/file.h>
#include <sys/wait.h>

static int lock;

/* What somebody else sees. */
static const char *state_of_it(void)
{
    int fd = open("lock", O_RDWR);
    CHECK(fd >= 0);
    const char *state = "free";
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        state = flock(fd, LOCK_SH | LOCK_NB) == 0 ? "shared" : "taken";
    CHECK(close(fd) == 0);
    return state;
}

static void in_child(int operation)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(flock(lock, operation) == 0 ? 0 : 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        for (int i = 0; i < 4; i++)
            say("started: descriptor %s, %s", fcntl(atoi(argv[1]), F_GETFD) < 0 ? "closed" : "open", state_of_it());
        return 0;
    }
    for (int round = 0; round < 3; round++) {
        lock = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHECK(lock >= 0);
        say("%d opened: %s", round, state_of_it());
        in_child(LOCK_EX);
        say("%d a child has taken it and ended: %s", round, state_of_it());
        say("%d still: %s", round, state_of_it());
        in_child(LOCK_SH);
        say("%d another one shares it: %s", round, state_of_it());
        in_child(LOCK_UN);
        say("%d a third one has given it back: %s", round, state_of_it());
        CHECK(flock(lock, LOCK_EX) == 0);
        say("%d taken here: %s", round, state_of_it());
        int status;
        pid_t child = fork();
        if (child == 0) {
            char number[16];
            snprintf(number, sizeof number, "%d", lock);
            execl("/proc/self/exe", argv[0], number, NULL);
            _exit(9);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        say("%d a program has run beside: %s", round, state_of_it());
        /* The last one that has it takes it away by closing. */
        int go[2];
        char byte;
        CHECK(pipe(go) == 0);
        child = fork();
        if (child == 0) {
            close(go[1]);
            CHECK(read(go[0], &byte, 1) == 0);
            _exit(0);
        }
        CHECK(close(lock) == 0 && close(go[0]) == 0);
        say("%d closed here, open there: %s", round, state_of_it());
        CHECK(close(go[1]) == 0 && waitpid(child, &status, 0) == child);
        say("%d closed there: %s", round, state_of_it());
    }
    return 0;
}
