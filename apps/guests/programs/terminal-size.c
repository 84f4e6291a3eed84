static volatile sig_atomic_t changes;
static void changed(int sig) { (void)sig; changes++; }

int main(void)
{
    struct sigaction act = {.sa_handler = changed};
    struct winsize size;
    CHECK(sigaction(SIGWINCH, &act, NULL) == 0 && ioctl(0, TIOCGWINSZ, &size) == 0);
    sigset_t winch, old;
    sigemptyset(&winch);
    sigaddset(&winch, SIGWINCH);
    CHECK(sigprocmask(SIG_BLOCK, &winch, &old) == 0);
    for (int r = 1; r <= 6; r++) {
        int rows = size.ws_row, columns = size.ws_col;
        say("size %d: %d %d", r, rows, columns);
        while (size.ws_row == rows && size.ws_col == columns) {
            sigsuspend(&old);
            CHECK(ioctl(0, TIOCGWINSZ, &size) == 0);
        }
        CHECK(changes > 0);
    }
    say("last: %d %d", size.ws_row, size.ws_col);
    say("ok");
    return 0;
}
