/* Threads that store into the same pages of a writable shared mapping of a file, with output in between. */
#define THREADS 4
#define PAGES 8

static unsigned *shared;
static pthread_barrier_t turn;

static void *store(void *which)
{
    long me = (long)which;
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_barrier_wait(&turn);
        for (int p = 0; p < PAGES; p++)
            shared[p * 1024 + me * 64 + r % 64] += r * (me + 1) + p;
        pthread_barrier_wait(&turn);
    }
    return 0;
}

int main(void)
{
    pthread_t threads[THREADS];
    int fd = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && ftruncate(fd, PAGES * 4096) == 0);
    shared = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(shared != MAP_FAILED && pthread_barrier_init(&turn, 0, THREADS + 1) == 0);
    for (long i = 0; i < THREADS; i++)
        CHECK(pthread_create(threads + i, 0, store, (void *)i) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
        say("round %d: %llx", r, (unsigned long long)checksum(shared, PAGES * 4096));
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], 0) == 0);
    say("ok");
    return 0;
}
