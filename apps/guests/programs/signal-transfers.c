enum { WRITES = 3000 };

static volatile sig_atomic_t alarms;
static void alarmed(int sig) { (void)sig; alarms++; }

/* A kernel looks for signals when a transfer is about to wait, and not before: while there is room and there are data, no
 * write and no read ends with EINTR, however many signals come, and handlers that do not ask for SA_RESTART are safe. */
int main(void)
{
    struct sigaction act = {.sa_handler = alarmed};
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    int own[2], broken_off = 0;
    CHECK(pipe(own) == 0 && sigaction(SIGALRM, &act, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; i < WRITES; i++) {
        char line[8], byte;
        int len = snprintf(line, sizeof line, "%d\n", i);
        ssize_t count;
        while ((count = write(1, line, len)) < 0 && errno == EINTR)
            broken_off++;
        CHECK(count == len);
        while ((count = write(own[1], line, 1)) < 0 && errno == EINTR)
            broken_off++;
        CHECK(count == 1);
        while ((count = read(own[0], &byte, 1)) < 0 && errno == EINTR)
            broken_off++;
        CHECK(count == 1 && byte == line[0]);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(alarms > 0);
    say("broken off: %d", broken_off);
    say("ok");
    return 0;
}
