static volatile sig_atomic_t interrupts;
static void interrupted(int sig) { (void)sig; interrupts++; }

/* Every interrupt that is typed arrives once: some while the program waits, some while it computes, some while it has
 * them blocked. Nothing is echoed: whether ^C is shown depends on how fast a program is (n_tty.c, flush_echoes). */
int main(void)
{
    struct sigaction act = {.sa_handler = interrupted};
    struct termios mode;
    sigset_t interrupt, old;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    CHECK(sigaction(SIGINT, &act, NULL) == 0 && tcgetattr(0, &mode) == 0);
    /* NOFLSH: else a ^C throws away what the terminal has not taken yet. */
    mode.c_lflag = (mode.c_lflag & ~ECHO) | NOFLSH;
    CHECK(tcsetattr(0, TCSANOW, &mode) == 0);
    for (int r = 1; r <= 24; r++) {
        if (r % 3 == 0)
            CHECK(sigprocmask(SIG_BLOCK, &interrupt, &old) == 0);
        say("ready %d", r);
        if (r % 3 == 0) {
            while (interrupts < r)
                sigsuspend(&old);
            CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
        }
        while (interrupts < r)
            if (r % 3 == 1)
                poll(NULL, 0, 2);
            else
                compute(20);
        CHECK(interrupts == r);
        /* As fast as fingers are: of two at once a kernel may make one. */
        usleep(70000);
    }
    say("ok");
    return 0;
}
