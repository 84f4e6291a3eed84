/* Asynchronous I/O: what is submitted comes about once, its events come once, tell an eventfd, wait for
 * other threads, and end after their time; a child has none of its parent's rings. */
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static long setup(unsigned n, aio_context_t *to) { return syscall(SYS_io_setup, n, to); }
static long submit(aio_context_t ring, long n, struct iocb **list) { return syscall(SYS_io_submit, ring, n, list); }
static long events(aio_context_t ring, long least, long most, struct io_event *to, struct timespec *time)
{
    return syscall(SYS_io_getevents, ring, least, most, to, time);
}

static struct iocb operation(int code, int fd, void *at, size_t len, long long offset, long data)
{
    struct iocb o = {.aio_data = data, .aio_lio_opcode = code, .aio_fildes = fd, .aio_buf = (uintptr_t)at,
                     .aio_nbytes = len, .aio_offset = offset};
    return o;
}

static aio_context_t ring;
static int file;

static void *submits_late(void *unused)
{
    static struct iocb o;
    struct iocb *list[] = {&o};
    usleep(3000);
    o = operation(IOCB_CMD_FSYNC, file, NULL, 0, 0, 77);
    CHECK(submit(ring, 1, list) == 1);
    return unused;
}

int main(void)
{
    char out[3][64], in[64], name[] = "aio-XXXXXX";
    struct iocb o[6], *list[6];
    struct io_event got[8];
    struct timespec none = {0, 0}, little = {0, 2000000};
    int told = eventfd(0, EFD_NONBLOCK);
    file = mkstemp(name);
    CHECK(file >= 0 && told >= 0);
    CHECK(setup(0, &ring) < 0 && errno == EINVAL);
    CHECK(setup(1, (void *)8) < 0 && errno == EFAULT);
    CHECK(setup(16, &ring) == 0 && ring != 0);
    CHECK(events(ring, 2, 1, got, NULL) < 0 && errno == EINVAL);
    CHECK(events(ring + 1, 0, 1, got, &none) < 0 && errno == EINVAL);
    for (int i = 0; i < 6; i++)
        list[i] = &o[i];
    for (int round = 0; round < ROUNDS; round++) {
        struct iovec parts[] = {{out[1], 32}, {out[2], 32}};
        for (int i = 0; i < 3; i++)
            memset(out[i], 'a' + (round + i) % 26, 64);
        o[0] = operation(IOCB_CMD_PWRITE, file, out[0], 64, 128 * round, 1);
        o[1] = operation(IOCB_CMD_PWRITEV, file, parts, 2, 128 * round + 64, 2);
        o[2] = operation(IOCB_CMD_FDSYNC, file, NULL, 0, 0, 3);
        o[3] = operation(IOCB_CMD_PREAD, file, in, 64, 128 * round + 64, 4);
        o[3].aio_flags = IOCB_FLAG_RESFD;
        o[3].aio_resfd = told;
        o[4] = operation(IOCB_CMD_PREAD, file, in, 64, 128 * (round + 1), 5);
        o[5] = operation(99, file, in, 64, 0, 6);
        CHECK(submit(ring, 6, list) == 5);
        CHECK(submit(ring, 1, list + 5) < 0 && errno == EINVAL);
        uint64_t count = 0;
        CHECK(read(told, &count, 8) == 8 && count == 1);
        CHECK(events(ring, 5, 8, got, NULL) == 5);
        /* In whatever order. */
        static const long results[] = {64, 64, 0, 64, 0};
        unsigned seen = 0;
        for (int i = 0; i < 5; i++) {
            unsigned nth = got[i].data - 1;
            CHECK(nth < 5 && got[i].obj == (uintptr_t)&o[nth] && got[i].res == results[nth]);
            seen |= 1u << nth;
        }
        CHECK(seen == 31);
        CHECK(memcmp(in, out[1], 32) == 0 && memcmp(in + 32, out[2], 32) == 0);
        CHECK(events(ring, 1, 8, got, &none) == 0 && events(ring, 1, 8, got, &little) == 0);
        say("round %d: %c, %lld bytes", round, in[0], (long long)lseek(file, 0, SEEK_END));
        if (round % 8 == 3) {
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, submits_late, NULL) == 0);
            CHECK(events(ring, 1, 1, got, NULL) == 1 && got[0].data == 77);
            CHECK(pthread_join(thread, NULL) == 0);
            int status;
            pid_t pid = fork();
            if (pid == 0)
                _exit(events(ring, 0, 1, got, &none) < 0 && errno == EINVAL ? 5 : 6);
            CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 5);
            say("round %d: a thread's came, and a child has none", round);
        }
    }
    /* As many as there is room for, no more. */
    int n = 0;
    o[0] = operation(IOCB_CMD_FSYNC, file, NULL, 0, 0, 1);
    while (n < 1000 && submit(ring, 1, list) == 1)
        n++;
    CHECK(n >= 16 && n < 1000 && errno == EAGAIN);
    while (n > 0)
        n -= events(ring, 1, 8, got, NULL);
    CHECK(syscall(SYS_io_cancel, ring, &o[0], got) < 0 && errno == EINVAL);
    CHECK(syscall(SYS_io_destroy, ring) == 0 && syscall(SYS_io_destroy, ring) < 0 && errno == EINVAL);
    unlink(name);
    say("ok");
    return 0;
}
