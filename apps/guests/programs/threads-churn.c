static __thread int own = 7;

static void *life(void *arg)
{
    char big[20000];
    memset(big, (intptr_t)arg, sizeof big);
    own += (intptr_t)arg;
    if ((intptr_t)arg % 3 == 0)
        pthread_exit((void *)(intptr_t)(own + big[100]));
    return (void *)(intptr_t)(own + big[100]);
}

int main(void)
{
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_t threads[8];
        intptr_t sum = 0;
        for (int i = 0; i < 8; i++)
            CHECK(pthread_create(&threads[i], NULL, life, (void *)(intptr_t)(i + r)) == 0);
        for (int i = 0; i < 8; i++) {
            void *result;
            CHECK(pthread_join(threads[i], &result) == 0);
            sum += (intptr_t)result;
        }
        CHECK(own == 7);
        say("round %d sum %ld", r, (long)sum);
    }
    say("ok");
    return 0;
}
