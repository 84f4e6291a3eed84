/* Calls with arguments that the kernel refuses: the error is its own, and nothing has come of it. */
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PAGE 4096
#define LIMIT 60

static int error(long result)
{
    return result == -1 ? errno : 0;
}

static void times(int r)
{
    struct timespec bad = {.tv_nsec = 1000000000}, back = {.tv_sec = -1};
    struct epoll_event event;
    int set = epoll_create1(0);
    CHECK(set >= 0);
    say("round %d times: %d %d %d %d %d %d", r, error(nanosleep(&bad, 0)), clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, 0),
        error(ppoll(0, 0, &bad, 0)), error(pselect(0, 0, 0, 0, &bad, 0)),
        error(syscall(SYS_epoll_pwait2, set, &event, 1, &bad, 0, 0)), error(nanosleep(&back, 0)));
    CHECK(close(set) == 0);
}

static void descriptors(int r)
{
    int fd = open("/dev/null", O_RDONLY), two[2];
    CHECK(fd >= 0 && pipe(two) == 0);
    say("round %d descriptors: %d %d %d %d %d %d %d", r, error(dup3(fd, fd, 0)), error(dup3(two[0], fd, -1)),
        error(dup3(99, 99, 0)), error(syscall(SYS_close_range, -1U, -1U, 0)), error(syscall(SYS_close_range, 9, 8, 0)),
        error(syscall(SYS_epoll_create, -1)), error(epoll_ctl(fd, EPOLL_CTL_ADD, -1, 0)));
    char byte = 1;
    /* What dup3 was not to replace is there; where a stream has no place, nothing waits. */
    CHECK(read(fd, &byte, 1) == 0);
    struct iovec part = {&byte, 1}, less = {&byte, -1UL}, nowhere = {(void *)-1, 1};
    say("round %d streams: %d %d %d %d %d", r, error(pwritev(two[1], &part, 1, 0)), error(pwrite(two[0], &byte, 1, 0)),
        error(readv(two[0], &less, 1)), error(readv(two[0], &nowhere, 1)), error(read(two[0], (void *)-1, 1)));
    CHECK(close(fd) == 0 && close(two[0]) == 0 && close(two[1]) == 0);
}

/* No call gives a number above the limit, nor does anything before it finds that out. */
static void limit(int r)
{
    int fds[LIMIT], n = 0, two[2];
    while ((fds[n] = dup(0)) >= 0)
        n++;
    CHECK(errno == EMFILE && n > 0 && n < LIMIT && fds[n - 1] == LIMIT - 1);
    sigset_t set;
    sigemptyset(&set);
    say("round %d limit: %d %d %d %d %d %d %d %d %d", r, error(open("not-made", O_CREAT | O_WRONLY, 0600)),
        error(pipe(two)), error(eventfd(0, 0)), error(epoll_create1(0)), error(timerfd_create(CLOCK_MONOTONIC, 0)),
        error(signalfd(-1, &set, 0)), error(inotify_init()), error(socket(AF_UNIX, SOCK_STREAM, 0)),
        error(memfd_create("none", 0)));
    CHECK(access("not-made", F_OK) == -1);
    say("round %d numbers: %d %d", r, error(dup2(0, LIMIT)), error(fcntl(0, F_DUPFD, LIMIT)));
    while (n > 0)
        CHECK(close(fds[--n]) == 0);
}

static void births(int r)
{
    struct {
        struct clone_args known;
        uint64_t more;
    } args = {.known = {.exit_signal = SIGCHLD}, .more = 1};
    struct clone_args wrong = {.exit_signal = SIGCHLD, .stack = 4096}, sharing = {.flags = CLONE_SIGHAND};
    say("round %d births: %d %d %d %d", r, error(syscall(SYS_clone3, &args, sizeof args)),
        error(syscall(SYS_clone3, &wrong, sizeof wrong)), error(syscall(SYS_clone3, &sharing, sizeof sharing)),
        error(syscall(SYS_clone3, &wrong, 8)));
}

static int opens(const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .mode = flags & O_CREAT ? 0600 : 0, .resolve = resolve};
    int fd;
    do /* A rename anywhere makes the kernel unsure of "..". */
        fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && !(resolve & RESOLVE_CACHED));
    if (fd < 0)
        return -errno;
    CHECK(close(fd) == 0);
    return 0;
}

static void resolved(int r)
{
    say("round %d opened: %d %d %d %d %d %d %d", r, opens("link", O_RDONLY, 0), opens("link", O_RDONLY, RESOLVE_NO_SYMLINKS),
        opens("deep/../../x", O_RDONLY, RESOLVE_BENEATH), opens("/etc/passwd", O_CREAT | O_RDWR, RESOLVE_BENEATH),
        opens("deep/made", O_CREAT | O_EXCL | O_WRONLY, RESOLVE_BENEATH), opens("deep/made", O_RDONLY, 1 << 9),
        opens("deep/made", O_CREAT | O_RDWR, RESOLVE_CACHED));
    CHECK(unlink("deep/made") == 0);
}

static void memory(int r)
{
    char *at = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && munmap(at + 3 * PAGE, PAGE) == 0);
    say("round %d memory: %d %d %d %d %d", r, error((long)mremap(at, PAGE, PAGE, MREMAP_FIXED, at + PAGE)),
        error((long)mremap(at, 2 * PAGE, PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, at + PAGE)),
        error((long)mremap(at, PAGE, PAGE, 64)), error(mlock(at, 4 * PAGE)), error(mlockall(MCL_ONFAULT)));
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0 && mlock(at, PAGE) == 0);
    at[0] = r;
    CHECK(munlockall() == 0 && munmap(at, 3 * PAGE) == 0);
}

/* Memory without a name is cut by its path in /proc as any file is, unless it is sealed. */
static void cut(int r)
{
    char path[64];
    int fd = memfd_create("cut", MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && write(fd, "something", 9) == 9);
    sprintf(path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_TRUNC);
    CHECK(again >= 0 && lseek(fd, 0, SEEK_END) == 0 && write(again, "new", 3) == 3);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    say("round %d cut: %d, and %d bytes are left", r, error(open(path, O_RDWR | O_TRUNC)), (int)lseek(fd, 0, SEEK_END));
    CHECK(close(fd) == 0 && close(again) == 0);
}

/* What is sent has gone, though where it ended cannot be told. */
static void sent(int r)
{
    off_t below = -1, *fixed = mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int from = open("/etc/passwd", O_RDONLY), to = open("sent", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fixed != MAP_FAILED && from >= 0 && to >= 0);
    int negative = error(sendfile(to, from, &below, 1)), untold = error(sendfile(to, from, fixed, 3));
    say("round %d sent: %d %d, %d bytes", r, negative, untold, (int)lseek(to, 0, SEEK_CUR));
    CHECK(close(from) == 0 && close(to) == 0 && unlink("sent") == 0 && munmap(fixed, PAGE) == 0);
}

int main(void)
{
    CHECK(mkdir("deep", 0700) == 0 && close(open("file", O_CREAT | O_WRONLY, 0600)) == 0 && symlink("file", "link") == 0);
    struct rlimit files = {LIMIT, LIMIT};
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        times(r);
        descriptors(r);
        limit(r);
        births(r);
        resolved(r);
        memory(r);
        cut(r);
        sent(r);
        say("round %d renamed: %d %d", r, error(renameat2(AT_FDCWD, "file", AT_FDCWD, "link", 3)),
            error(renameat2(AT_FDCWD, "gone", AT_FDCWD, "file", 8)));
    }
    CHECK(unlink("link") == 0 && unlink("file") == 0 && rmdir("deep") == 0);
    say("ok");
    return 0;
}
