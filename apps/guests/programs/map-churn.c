#define SLOTS 24
static unsigned char *map[SLOTS];
static size_t len[SLOTS];
static int locked[SLOTS];

int main(void)
{
    uint64_t seed = 1;
    for (int r = 1; r <= ROUNDS * 3; r++) {
        seed = mix(seed + r);
        int i = seed % SLOTS;
        if (!map[i]) {
            len[i] = (1 + (seed >> 8) % 40) * 4096;
            map[i] = mmap(NULL, len[i], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            CHECK(map[i] != MAP_FAILED);
            for (size_t at = 0; at < len[i]; at += 512)
                map[i][at] = mix(seed + at);
        } else if (locked[i]) {
            CHECK(mprotect(map[i], len[i], PROT_READ | PROT_WRITE) == 0);
            locked[i] = 0;
            map[i][len[i] / 2]++;
        } else if ((seed >> 16) % 4 == 0) {
            CHECK(munmap(map[i], len[i]) == 0);
            map[i] = NULL;
        } else if ((seed >> 16) % 4 == 1) {
            size_t want = (1 + (seed >> 24) % 80) * 4096;
            map[i] = mremap(map[i], len[i], want, MREMAP_MAYMOVE);
            CHECK(map[i] != MAP_FAILED);
            len[i] = want;
            map[i][want - 1] = r;
        } else if ((seed >> 16) % 4 == 2) {
            CHECK(madvise(map[i], 4096, MADV_DONTNEED) == 0);
            CHECK(map[i][0] == 0 && map[i][512] == 0);
            map[i][17] = r;
        } else {
            CHECK(mprotect(map[i], len[i], PROT_READ) == 0);
            locked[i] = 1;
        }
        uint64_t sum = 0;
        for (int j = 0; j < SLOTS; j++)
            sum = sum * 31 + (map[j] ? checksum(map[j], len[j]) : 0);
        say("round %d %016llx", r, (unsigned long long)sum);
    }
    say("ok");
    return 0;
}
