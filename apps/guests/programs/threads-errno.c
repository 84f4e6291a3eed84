static volatile int stop;

static void *fail(void *arg)
{
    int want = (int)(intptr_t)arg;
    for (long n = 0; !stop; n++) {
        if (want == EBADF)
            CHECK(close(-1) == -1);
        else if (want == ENOENT)
            CHECK(open("/nowhere/at/all", O_RDONLY) == -1);
        else
            CHECK(lseek(0, 1, 99) == -1);
        CHECK(errno == want);
        compute(1);
        CHECK(errno == want);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[3];
    int wants[] = {EBADF, ENOENT, EINVAL};
    /* Input may be a pipe, where a seek says ESPIPE: a file says EINVAL. */
    int fd = open("seekable", O_CREAT | O_RDWR, 0600);
    CHECK(fd >= 0 && dup2(fd, 0) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, fail, (void *)(intptr_t)wants[i]) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        errno = 0;
        compute(5);
        CHECK(errno == 0);
        CHECK(mkdir("/", 0700) == -1 && errno == EEXIST);
        say("round %d", r);
        CHECK(errno == EEXIST);
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    say("ok");
    return 0;
}
