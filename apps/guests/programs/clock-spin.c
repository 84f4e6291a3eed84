/* The time asked for without pause, alone, beside another thread and in a handler: it never goes back, and whatever
 * moment a kill or a signal chose, the asker keeps its registers. */

static volatile sig_atomic_t ticks, back_in_handler, done;

static int64_t read_ns(int way)
{
    struct timespec t;
    struct timeval v;
    switch (way % 3) {
    case 0:
        return clock_gettime(CLOCK_MONOTONIC, &t) ? -1 : t.tv_sec * 1000000000LL + t.tv_nsec;
    case 1:
        return clock_gettime(CLOCK_BOOTTIME, &t) ? -1 : t.tv_sec * 1000000000LL + t.tv_nsec;
    default:
        return gettimeofday(&v, 0) ? -1 : v.tv_sec * 1000000000LL + v.tv_usec * 1000LL;
    }
}

/* How often the time went back, or a sum that lives in registers meanwhile was lost. */
static int spin(int count)
{
    int64_t last[3] = {0};
    int wrong = 0;
    uint64_t a = 1, b = 2, c = 3, d = 4;
    for (int i = 0; i < count; i++) {
        int64_t now = read_ns(i);
        wrong += now <= 0 || now < last[i % 3];
        last[i % 3] = now;
        a += b ^ c, b += 3, c += 5, d += 7;
    }
    uint64_t aa = 1, bb = 2, cc = 3;
    for (int i = 0; i < count; i++)
        aa += bb ^ cc, bb += 3, cc += 5;
    return wrong + (a != aa) + (d != 4 + 7ull * count);
}

static void on_tick(int sig)
{
    (void)sig;
    /* Either thread may be interrupted, also while the other one is in here. */
    static _Thread_local int64_t last;
    int64_t now = read_ns(0);
    back_in_handler |= now < last;
    last = now;
    ticks++;
}

static void *beside(void *wrong)
{
    while (!done)
        *(volatile int *)wrong += spin(300);
    return 0;
}

int main(void)
{
    int wrong_beside = 0;
    pthread_t thread;
    struct sigaction act = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    CHECK(getauxval(AT_SYSINFO_EHDR) != 0);
    CHECK(sigaction(SIGALRM, &act, 0) == 0);
    struct itimerval every = {{0, 700}, {0, 700}};
    CHECK(setitimer(ITIMER_REAL, &every, 0) == 0);
    for (int round = 1; round <= 4 * ROUNDS; round++) {
        if (round == 2 * ROUNDS)
            CHECK(pthread_create(&thread, 0, beside, &wrong_beside) == 0);
        CHECK(spin(4000) == 0);
        CHECK(wrong_beside == 0 && !back_in_handler);
        say("round %d", round);
    }
    done = 1;
    CHECK(pthread_join(thread, 0) == 0);
    CHECK(wrong_beside == 0 && !back_in_handler && ticks > 0);
    say("ok");
    return 0;
}
