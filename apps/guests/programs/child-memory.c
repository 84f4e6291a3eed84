/*
 * A process and its child, each with memory that it goes on changing, say by turns what the sum of theirs is: both are of one
 * commit, whoever has made it.
 */
#include <sys/wait.h>

enum { PAGES = 96, WORDS = 512 };
static unsigned memory[PAGES][WORDS] __attribute__((aligned(4096)));

static unsigned change_and_add(unsigned round)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < 24; i++) {
        unsigned page = (round * 31 + i * 7) % PAGES;
        memory[page][(round * 13 + i) % WORDS] += round * 2654435761u + i;
    }
    for (unsigned page = 0; page < PAGES; page++)
        for (unsigned word = 0; word < WORDS; word++)
            sum = sum * 31 + memory[page][word];
    return sum;
}

static void turns(const char *who, int from, int to)
{
    char turn;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        /* Unseen by anybody, but part of what comes next. */
        change_and_add(1000 + round);
        CHECK(read(from, &turn, 1) == 1);
        say("%s %u: %08x", who, round, change_and_add(round));
        CHECK(write(to, "t", 1) == 1);
    }
}

int main(void)
{
    int there[2], back[2], status;
    CHECK(!pipe(there) && !pipe(back));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        turns("child", there[0], back[1]);
        _exit(0);
    }
    CHECK(write(back[1], "t", 1) == 1);
    turns("parent", back[0], there[1]);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    say("ok");
    return 0;
}
