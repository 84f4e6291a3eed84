/*
 * A futex that is not private, in memory that was left alone for long: who waits
 * there is found by who wakes, whichever of them came before the memory was cold.
 */
#include <linux/futex.h>

enum { PAGE = 4096, PAGES = 512 };

static unsigned char *cold;

static _Atomic uint32_t *word_of(int round)
{
    return (_Atomic uint32_t *)(cold + (size_t)(round * 7 % PAGES) * PAGE + 128);
}

static void rest(int turns)
{
    static unsigned char busy[PAGE];
    for (int turn = 0; turn < turns; turn++) {
        busy[turn % PAGE]++;
        usleep(500);
        say("rests %d", turn);
    }
}

static void *waiter(void *arg)
{
    int round = (int)(intptr_t)arg;
    while (*word_of(round) != (uint32_t)round)
        syscall(SYS_futex, word_of(round), FUTEX_WAIT, 0, NULL, NULL, 0);
    return NULL;
}

int main(void)
{
    cold = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0);
    CHECK(cold != MAP_FAILED);
    for (int page = 0; page < PAGES; page++)
        memset(cold + (size_t)page * PAGE + 256, page % 251 + 1, PAGE - 256);
    for (int round = 1; round <= 6; round++) {
        pthread_t thread;
        int waits_first = round % 2;
        if (!waits_first)
            rest(400);
        CHECK(pthread_create(&thread, NULL, waiter, (void *)(intptr_t)round) == 0);
        if (waits_first)
            rest(400);
        else
            usleep(20000);
        *word_of(round) = (uint32_t)round;
        syscall(SYS_futex, word_of(round), FUTEX_WAKE, 1, NULL, NULL, 0);
        CHECK(pthread_join(thread, NULL) == 0);
        say("round %d woken", round);
        for (int page = 0; page < PAGES; page++)
            CHECK(cold[(size_t)page * PAGE + 256 + round] == page % 251 + 1);
    }
    say("ok");
    return 0;
}
