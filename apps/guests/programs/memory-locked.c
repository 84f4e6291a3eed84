/* Locked memory: by mlock, mlock2, mmap and mlockall, what comes later with it, and what a fork leaves out. */
#include <sys/wait.h>

static long field(const char *name)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    CHECK(fd >= 0 && n > 0 && close(fd) == 0);
    text[n] = 0;
    char *at = strstr(text, name);
    CHECK(at);
    return strtol(at + strlen(name), 0, 10);
}

/* (What is locked of everything depends on the size of everything.) */
static void show(int round, int all)
{
    long locked_kb = field("VmLck:");
    say("round %d: %s%ld kB locked", round, all && locked_kb > 400 ? "more than 400, " : "", all ? 0 : locked_kb);
}

int main(void)
{
    enum { KB = 1024, LEN = 256 * KB };
    char *at = mmap(0, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    memset(at, 'x', LEN);
    for (int r = 1; r <= ROUNDS / 2; r++) {
        switch (r) {
        case 2: CHECK(mlock(at, 64 * KB) == 0); break;
        case 3: CHECK(mlock2(at + 128 * KB, 64 * KB, MLOCK_ONFAULT) == 0); break;
        case 4: CHECK(munlock(at + 16 * KB, 16 * KB) == 0); break;
        case 5: CHECK(mmap(at + 64 * KB, 32 * KB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_FIXED, -1, 0) == at + 64 * KB); break;
        case 6: CHECK(mprotect(at + 132 * KB, 8 * KB, PROT_NONE) == 0); break;
        case 7: CHECK(mremap(at, 16 * KB, 16 * KB, MREMAP_MAYMOVE | MREMAP_FIXED, at + 200 * KB) == at + 200 * KB); break;
        case 9: CHECK(mlockall(MCL_FUTURE) == 0 && mmap(0, 100 * KB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED); break;
        case 10: CHECK(mmap(0, 24 * KB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED); break;
        case 11: CHECK(mlockall(MCL_CURRENT) == 0); break;
        case 12: CHECK(munlockall() == 0); break;
        case 13: CHECK(mlock(at + 96 * KB, 4 * KB) == 0); break;
        }
        say("round %d set", r);
        show(r, r == 11);
        pid_t pid = fork();
        if (pid == 0) {
            say("round %d: %ld kB in a child", r, field("VmLck:"));
            _exit(0);
        }
        CHECK(waitpid(pid, 0, 0) == pid);
        show(r, r == 11);
    }
    say("ok");
    return 0;
}
