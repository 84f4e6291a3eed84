/* Many queued signals with their values: unblocked all at once, taken one by one while blocked, and a thread that goes on
 * when the first one has ended. */
#define COUNT 50

static volatile int got, sum, last;
static volatile int in_order = 1;

static void take(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    in_order &= info->si_value.sival_int == last + 1;
    last = info->si_value.sival_int;
    got++;
    sum += last;
}

static void *rounds(void *unused)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 4);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, 0) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        for (int i = 1; i <= COUNT; i++)
            CHECK(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){.sival_int = i}) == 0);
        say("round %d: queued", r);
        if (r % 2) {
            siginfo_t info;
            struct timespec none = {0, 0};
            for (int i = 1; i <= COUNT; i++)
                CHECK(sigtimedwait(&set, &info, &none) == SIGRTMIN + 4 && info.si_value.sival_int == i);
            CHECK(sigtimedwait(&set, &info, &none) == -1 && errno == EAGAIN);
        } else {
            /* Of those that come together the first to run is the last to have come. */
            got = sum = 0;
            CHECK(pthread_sigmask(SIG_UNBLOCK, &set, 0) == 0);
            CHECK(pthread_sigmask(SIG_BLOCK, &set, 0) == 0);
            CHECK(got == COUNT && sum == COUNT * (COUNT + 1) / 2);
        }
        say("round %d: taken", r);
    }
    say("ok");
    exit(0);
    return unused;
}

int main(void)
{
    struct sigaction act = {.sa_sigaction = take, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGRTMIN + 4, &act, 0) == 0);
    sigset_t all;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_BLOCK, &all, 0) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, 0, rounds, 0) == 0);
    pthread_exit(0);
}
