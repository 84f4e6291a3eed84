/*
 * Memory that is left alone for long, read, partly rewritten, dropped, moved and
 * given to a child, while a small part is written again and again.
 */
#include <sys/wait.h>

enum { PAGE = 4096, MIB = 256, PAGES = 6 * MIB };

static unsigned char *cold;
static uint64_t sums[PAGES];
static unsigned char busy[64][PAGE];

static unsigned char *page_at(int page)
{
    return cold + (size_t)page * PAGE;
}

static void write_page(int page, uint64_t seed)
{
    for (size_t word = 0; word < PAGE; word += 64)
        memcpy(page_at(page) + word, &(uint64_t){mix(seed * PAGES + page + word)}, 8);
    sums[page] = checksum(page_at(page), PAGE);
}

static void check(const char *what, int round)
{
    uint64_t all = 0;
    for (int page = 0; page < PAGES; page++) {
        CHECK(sums[page] == checksum(page_at(page), PAGE));
        all = mix(all ^ sums[page]);
    }
    say("%d %s: %016llx", round, what, (unsigned long long)all);
}

/* So many small commits, over some time: what they replace is used again at once. */
static void rest(int round)
{
    for (int turn = 0; turn < 300; turn++) {
        for (int page = 0; page < 64; page += 1 + turn % 3)
            busy[page][turn * 8 % PAGE] = (unsigned char)mix(round * 1000 + turn + page);
        usleep(500);
        say("%d rests %d: %016llx", round, turn, (unsigned long long)checksum(busy, sizeof busy));
    }
}

static void be_child(uint64_t sum)
{
    _exit(checksum(cold, (size_t)PAGES * PAGE) == sum ? 0 : 1);
}

int main(void)
{
    cold = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0);
    CHECK(cold != MAP_FAILED);
    for (int page = 0; page < PAGES; page++)
        write_page(page, 0);
    say("filled");
    for (int round = 1; round <= 8; round++) {
        rest(round);
        if (round % 2 == 0)
            check("rested", round);
        switch (round) {
        case 1: /* a third of a part: its frames are scattered from then on */
        case 3:
            for (int page = 0; page < 4 * MIB; page += 3)
                write_page(page, round);
            break;
        case 2: /* single pages here and there */
            for (int page = 5; page < PAGES; page += 400)
                write_page(page, round);
            break;
        case 4: /* dropped: zeros, and not what the image has */
            CHECK(madvise(page_at(MIB), MIB * PAGE, MADV_DONTNEED) == 0);
            for (int page = MIB; page < 2 * MIB; page++) {
                CHECK(page_at(page)[17] == 0);
                sums[page] = checksum(page_at(page), PAGE);
            }
            break;
        case 5: /* moved, and another part protected for a while */
            cold = mremap(cold, (size_t)PAGES * PAGE, (size_t)PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                          (void *)0x7000000000);
            CHECK(cold == (void *)0x7000000000);
            CHECK(mprotect(page_at(3 * MIB), MIB * PAGE, PROT_READ) == 0);
            break;
        case 6:
            CHECK(mprotect(page_at(3 * MIB), MIB * PAGE, PROT_READ | PROT_WRITE) == 0);
            for (int page = 3 * MIB; page < 4 * MIB; page += 2)
                write_page(page, round);
            /* The kernel writes into it. */
            int null = open("/dev/zero", O_RDONLY);
            CHECK(null >= 0 && read(null, page_at(5 * MIB) + 100, 3 * PAGE) == 3 * PAGE);
            close(null);
            for (int page = 5 * MIB; page < 5 * MIB + 4; page++)
                sums[page] = checksum(page_at(page), PAGE);
            break;
        case 7: {
            uint64_t sum = checksum(cold, (size_t)PAGES * PAGE);
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0)
                be_child(sum);
            int status = 0;
            pid_t found;
            while ((found = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
            }
            /* After a recovery the child may have been another process's. */
            CHECK(found != child || !WIFEXITED(status) || WEXITSTATUS(status) == 0);
            break;
        }
        }
        check("changed", round);
    }
    /* Locked and advised while it is cold. */
    CHECK(madvise(page_at(4 * MIB), MIB * PAGE, MADV_DONTFORK) == 0);
    CHECK(mlock(page_at(0), MIB * PAGE) == 0);
    check("locked", 9);
    CHECK(munmap(page_at(0), MIB * PAGE) == 0);
    rest(9);
    say("ok");
    return 0;
}
