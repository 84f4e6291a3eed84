/* A call that waits for what another thread does, of each kind that can wait: it must not keep the other one from doing
 * it, nor end before it is done. */
#include <pty.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { LONG = 400000 };
static int a, b;
static char out[LONG], in[LONG];
static pthread_t first;

static void take_all(void)
{
    for (long got = 0; got < LONG;) {
        ssize_t count = read(b, in + got, LONG - got < 65536 ? LONG - got : 65536);
        CHECK(count > 0);
        got += count;
    }
    CHECK(memcmp(in, out, LONG) == 0);
}
static void give(void) { CHECK(write(b, "hello", 5) == 5); }
static void give_in_two(void) { CHECK(write(b, "hel", 3) == 3); compute(300); CHECK(write(b, "lo", 2) == 2); }

static void make_pipe(void) { int ends[2]; CHECK(!pipe(ends)); a = ends[0]; b = ends[1]; }
static void make_pipe_back(void) { make_pipe(); int end = a; a = b; b = end; }
static void make_sockets(void) { int ends[2]; CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends)); a = ends[0]; b = ends[1]; }
static void make_datagrams(void) { int ends[2]; CHECK(!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)); a = ends[0]; b = ends[1]; }

static struct iovec *parts(char *at, int len, int count)
{
    static struct iovec all[8];
    for (int i = 0; i < count; i++)
        all[i] = (struct iovec){at + i * (len / count), len / count};
    all[count - 1].iov_len += len % count;
    return all;
}
static struct msghdr *message(char *at, int len, int count)
{
    static struct msghdr header;
    header = (struct msghdr){.msg_iov = parts(at, len, count), .msg_iovlen = count};
    return &header;
}
static void is_hello(long count, const char *text) { CHECK(count == 5 && memcmp(text, "hello", 5) == 0); }

/* Of several buffers all are filled. */
static void by_readv(void) { char text[5]; is_hello(readv(a, parts(text, 5, 2), 2), text); }
static void by_preadv2(void) { char text[5]; is_hello(preadv2(a, parts(text, 5, 3), 3, -1, 0), text); }
static void by_recvmsg(void) { char text[5]; is_hello(recvmsg(a, message(text, 5, 2), 0), text); }
static void by_recv_all(void) { char text[5]; is_hello(recv(a, text, 5, MSG_WAITALL), text); }
static void by_recvmsg_all(void) { char text[5]; is_hello(recvmsg(a, message(text, 5, 2), MSG_WAITALL), text); }
static void by_write(void) { CHECK(write(a, out, LONG) == LONG); }
static void by_writev(void) { CHECK(writev(a, parts(out, LONG, 5), 5) == LONG); }
static void by_pwritev2(void) { CHECK(pwritev2(a, parts(out, LONG, 5), 5, -1, 0) == LONG); }
static void by_send(void) { CHECK(send(a, out, LONG, MSG_NOSIGNAL) == LONG); }
static void by_sendmsg(void) { CHECK(sendmsg(a, message(out, LONG, 5), MSG_NOSIGNAL) == LONG); }

static void make_locks(void)
{
    a = open("lock", O_CREAT | O_RDWR, 0600);
    b = open("lock", O_RDWR);
    CHECK(a >= 0 && b >= 0 && flock(b, LOCK_EX) == 0);
}
static void unlock(void) { CHECK(flock(b, LOCK_UN) == 0); }
static void by_flock(void) { CHECK(flock(a, LOCK_EX) == 0); }

static struct flock whole(int type) { return (struct flock){.l_type = type}; }
static void make_range_locks(void)
{
    struct flock lock = whole(F_WRLCK);
    a = open("lock", O_CREAT | O_RDWR, 0600);
    b = open("lock", O_RDWR);
    CHECK(a >= 0 && b >= 0 && fcntl(b, F_OFD_SETLK, &lock) == 0);
}
static void unlock_range(void) { struct flock lock = whole(F_UNLCK); CHECK(fcntl(b, F_OFD_SETLK, &lock) == 0); }
static void by_range_lock(void) { struct flock lock = whole(F_WRLCK); CHECK(fcntl(a, F_OFD_SETLKW, &lock) == 0); }

static void make_fifo(void) { if (mkfifo("fifo", 0600) != 0) CHECK(errno == EEXIST); a = b = -1; }
static void open_other_end(void) { b = open("fifo", O_WRONLY); CHECK(b >= 0); }
static void by_fifo(void) { a = open("fifo", O_RDONLY); CHECK(a >= 0); }
static void open_reading_end(void) { b = open("fifo", O_RDONLY); CHECK(b >= 0); }
static void by_fifo_back(void) { a = open("fifo", O_WRONLY | O_CREAT | O_TRUNC, 0600); CHECK(a >= 0); }

static void make_eventfd(void) { a = eventfd(0, 0); b = dup(a); CHECK(a >= 0 && b >= 0); }
static void count(void) { uint64_t three = 3; CHECK(write(b, &three, 8) == 8); }
static void by_eventfd(void) { uint64_t value; CHECK(read(a, &value, 8) == 8 && value == 3); }
static void make_full_eventfd(void) { uint64_t most = -2ULL; make_eventfd(); CHECK(write(a, &most, 8) == 8); }
static void uncount(void) { uint64_t value; CHECK(read(b, &value, 8) == 8); }
static void by_full_eventfd(void) { uint64_t five = 5; CHECK(write(a, &five, 8) == 8); }

static void make_timer(void) { a = timerfd_create(CLOCK_MONOTONIC, 0); b = dup(a); CHECK(a >= 0 && b >= 0); }
static void set_timer(void) { struct itimerspec soon = {.it_value = {0, 1000000}}; CHECK(timerfd_settime(b, 0, &soon, 0) == 0); }
static void by_timer(void) { uint64_t times; CHECK(read(a, &times, 8) == 8 && times == 1); }

static void make_watch(void)
{
    a = inotify_init();
    b = -1;
    if (mkdir("watched", 0700) != 0) CHECK(errno == EEXIST);
    CHECK(a >= 0 && inotify_add_watch(a, "watched", IN_CREATE) >= 0);
}
static void touch(void) { CHECK((b = open("watched/new", O_CREAT | O_RDWR, 0600)) >= 0 && unlink("watched/new") == 0); }
static void by_watch(void) { char buffer[4096]; CHECK(read(a, buffer, sizeof buffer) > 0); }

static void make_terminal(void) { CHECK(openpty(&b, &a, 0, 0, 0) == 0); }
static void type(void) { CHECK(write(b, "hell\n", 5) == 5); }
static void by_terminal(void) { char line[64]; CHECK(read(a, line, sizeof line) == 5 && memcmp(line, "hell\n", 5) == 0); }

static void by_poll(void) { struct pollfd one = {a, POLLIN, 0}; CHECK(poll(&one, 1, -1) == 1 && one.revents == POLLIN); }
static void by_select(void) { fd_set set; FD_ZERO(&set); FD_SET(a, &set); CHECK(select(a + 1, &set, 0, 0, 0) == 1); }
static void hang_up(void) { CHECK(close(b) == 0); b = -1; }
static void by_end(void) { char byte; CHECK(read(a, &byte, 1) == 0); }

static void nothing(void) { a = b = -1; }
static void signal_first(void) { CHECK(pthread_kill(first, SIGUSR1) == 0); }
static void by_sigwait(void) { sigset_t set; int which; sigemptyset(&set); sigaddset(&set, SIGUSR1); CHECK(sigwait(&set, &which) == 0 && which == SIGUSR1); }
static void make_signalfd(void) { sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); a = signalfd(-1, &set, 0); b = -1; CHECK(a >= 0); }
static void by_signalfd(void) { struct signalfd_siginfo info; CHECK(read(a, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1); }

static const struct {
    const char *name;
    void (*make)(void), (*wait)(void), (*free)(void);
} KINDS[] = {
    {"readv", make_pipe, by_readv, give},
    {"preadv2", make_pipe, by_preadv2, give},
    {"recvmsg", make_sockets, by_recvmsg, give},
    {"recvmsg of a datagram", make_datagrams, by_recvmsg, give},
    {"recv, all of it", make_sockets, by_recv_all, give_in_two},
    {"recvmsg, all of it", make_sockets, by_recvmsg_all, give_in_two},
    {"write to a pipe", make_pipe_back, by_write, take_all},
    {"writev to a pipe", make_pipe_back, by_writev, take_all},
    {"pwritev2 to a pipe", make_pipe_back, by_pwritev2, take_all},
    {"write to a socket", make_sockets, by_write, take_all},
    {"writev to a socket", make_sockets, by_writev, take_all},
    {"send", make_sockets, by_send, take_all},
    {"sendmsg", make_sockets, by_sendmsg, take_all},
    {"flock", make_locks, by_flock, unlock},
    {"a lock of a range", make_range_locks, by_range_lock, unlock_range},
    {"a fifo that is read", make_fifo, by_fifo, open_other_end},
    {"a fifo that is written", make_fifo, by_fifo_back, open_reading_end},
    {"eventfd", make_eventfd, by_eventfd, count},
    {"eventfd, full", make_full_eventfd, by_full_eventfd, uncount},
    {"timerfd", make_timer, by_timer, set_timer},
    {"inotify", make_watch, by_watch, touch},
    {"terminal", make_terminal, by_terminal, type},
    {"poll", make_pipe, by_poll, give},
    {"select", make_pipe, by_select, give},
    {"end of file", make_pipe, by_end, hang_up},
    {"sigwait", nothing, by_sigwait, signal_first},
    {"signalfd", make_signalfd, by_signalfd, signal_first},
};

static void *other(void *free)
{
    compute(400);
    ((void (*)(void))free)();
    return 0;
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &set, 0) == 0);
    first = pthread_self();
    for (int i = 0; i < LONG; i++)
        out[i] = (char)mix(i);
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        pthread_t thread;
        KINDS[i].make();
        CHECK(pthread_create(&thread, 0, other, (void *)KINDS[i].free) == 0);
        KINDS[i].wait();
        CHECK(pthread_join(thread, 0) == 0);
        if (a >= 0)
            CHECK(close(a) == 0);
        if (b >= 0)
            CHECK(close(b) == 0);
        say("%s", KINDS[i].name);
    }
    CHECK(unlink("lock") == 0 && unlink("fifo") == 0 && rmdir("watched") == 0);
    say("ok");
    return 0;
}
