#include <sys/select.h>

enum { CHANGES = 24, LATE_AT_MOST = 4 };

static volatile sig_atomic_t changed;
static void change(int sig) { (void)sig; changed = 1; }

/* Waits for a key or for nothing; whether a signal came meanwhile. */
static int interrupted(struct timeval *most)
{
    fd_set keys;
    FD_ZERO(&keys);
    FD_SET(0, &keys);
    return select(1, &keys, NULL, NULL, most) < 0 && errno == EINTR;
}

/* As editors do: the handler notes that the window has another size, and who waits looks at the note when a signal has
 * interrupted the wait. One that comes between painting and waiting is not seen before the next key; it has a microsecond
 * for that, unless a recovery brings it there. Too late is what took until the wait was over by itself. */
int main(void)
{
    struct sigaction act = {.sa_handler = change};
    struct winsize size;
    int late = 0;
    CHECK(sigaction(SIGWINCH, &act, NULL) == 0 && ioctl(0, TIOCGWINSZ, &size) == 0);
    for (int r = 1; r <= CHANGES; r++) {
        int rows = size.ws_row;
        say("size %d: %d %d", r, size.ws_row, size.ws_col);
        for (;;) {
            struct timeval nothing = {0, 0}, long_enough = {2, 0};
            interrupted(&nothing);
            int in_time = interrupted(&long_enough);
            if (!changed)
                continue;
            changed = 0;
            CHECK(ioctl(0, TIOCGWINSZ, &size) == 0);
            if (size.ws_row == rows)
                continue;
            late += !in_time;
            break;
        }
    }
    if (late > LATE_AT_MOST)
        say("%d of %d came too late", late, CHANGES);
    say("ok");
    return 0;
}
