static int ends[2];
static __thread volatile sig_atomic_t hits;
static pthread_t listener;

static void hit(int sig)
{
    (void)sig;
    hits++;
}

static void *listen(void *arg)
{
    char byte;
    long interrupted = 0;
    for (;;) {
        ssize_t count = read(ends[0], &byte, 1);
        if (count < 0) {
            CHECK(errno == EINTR && hits > 0);
            interrupted++;
            continue;
        }
        if (byte == 'q')
            return (void *)interrupted;
        /* Signals to the process, blocked elsewhere, come to this thread as well. */
        if (byte == '?')
            CHECK(hits >= 1);
    }
    return arg;
}

int main(void)
{
    struct sigaction act = {.sa_handler = hit};
    sigset_t both;
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0 && pipe(ends) == 0);
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    CHECK(pthread_create(&listener, NULL, listen, NULL) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &both, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        CHECK(r % 2 ? pthread_kill(listener, SIGUSR1) == 0 : kill(getpid(), SIGUSR1) == 0);
        usleep(1000);
        CHECK(write(ends[1], "?", 1) == 1);
        say("round %d", r);
        CHECK(hits == 0);
    }
    CHECK(write(ends[1], "q", 1) == 1);
    void *interrupted;
    CHECK(pthread_join(listener, &interrupted) == 0 && (long)interrupted <= ROUNDS);
    say("ok");
    return 0;
}
