#define THREADS 4
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t gate;
static __thread uint64_t mine;
static uint64_t shared[THREADS];
static int whose, total;

static void *work(void *arg)
{
    int me = (int)(intptr_t)arg;
    pthread_barrier_wait(&gate);
    for (int r = 1; r <= ROUNDS; r++) {
        mine = mix(mine + me + r);
        compute(2);
        CHECK(pthread_mutex_lock(&lock) == 0);
        while (whose != me)
            CHECK(pthread_cond_wait(&turn, &lock) == 0);
        shared[me] = mine;
        total++;
        say("thread %d round %d %016llx", me, r, (unsigned long long)mine);
        whose = (me + 1) % THREADS;
        CHECK(pthread_cond_broadcast(&turn) == 0 && pthread_mutex_unlock(&lock) == 0);
    }
    return (void *)(intptr_t)(me * 100);
}

int main(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&gate, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0 && (intptr_t)result == i * 100);
    }
    for (int i = 0; i < THREADS; i++)
        say("thread %d left %016llx", i, (unsigned long long)shared[i]);
    CHECK(total == THREADS * ROUNDS && mine == 0);
    say("ok");
    return 0;
}
