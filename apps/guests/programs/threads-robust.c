static pthread_mutex_t lock;

static void *die_holding(void *arg)
{
    CHECK(pthread_mutex_lock(&lock) == 0);
    return arg;
}

int main(void)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    CHECK(pthread_mutex_init(&lock, &attr) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, die_holding, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        say("round %d the owner is gone", r);
        CHECK(pthread_mutex_lock(&lock) == EOWNERDEAD);
        CHECK(pthread_mutex_lock(&lock) == EDEADLK);
        say("round %d taken over", r);
        CHECK(pthread_mutex_consistent(&lock) == 0 && pthread_mutex_unlock(&lock) == 0);
        CHECK(pthread_mutex_unlock(&lock) == EPERM);
    }
    say("ok");
    return 0;
}
