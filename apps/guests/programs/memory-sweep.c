/* Writes that move upward through memory, at a steady pace, faster, slower, not at all and from the start again; the
 * checksum of all of it after each step. */

enum { PAGE = 4096, PAGES = 1024 };
static unsigned char area[PAGES * PAGE];
static uint64_t sums[PAGES];

int main(void)
{
    static const int steps[] = {40, 40, 40, 40, 55, 55, 20, 40, 40, 0, 40, 40, 41, 3, 40, 40};
    int at = 0;
    for (int page = 0; page < PAGES; page++) {
        memset(area + page * PAGE, page % 251 + 1, PAGE);
        sums[page] = checksum(area + page * PAGE, PAGE);
    }
    say("filled");
    for (int round = 1; round <= 8 * ROUNDS; round++) {
        int step = steps[round % (sizeof steps / sizeof *steps)];
        for (int i = 0; i < step; i++) {
            int page = (at + i) % PAGES;
            area[page * PAGE + (round * 97 + i) % PAGE] = mix(round * 4096 + i);
            sums[page] = checksum(area + page * PAGE, PAGE);
        }
        at = (at + step) % PAGES;
        /* A page behind and one ahead of the stream, now and then. */
        if (round % 7 == 0) {
            int page = (at + 600) % PAGES;
            area[page * PAGE] ^= 1;
            sums[page] = checksum(area + page * PAGE, PAGE);
        }
        uint64_t all = 0;
        for (int page = 0; page < PAGES; page++)
            all = mix(all ^ sums[page]);
        if (round % 16 == 0)
            for (int page = 0; page < PAGES; page++)
                CHECK(sums[page] == checksum(area + page * PAGE, PAGE));
        say("round %d at %d: %016llx", round, at, (unsigned long long)all);
    }
    for (int page = 0; page < PAGES; page++)
        CHECK(sums[page] == checksum(area + page * PAGE, PAGE));
    say("ok");
    return 0;
}
