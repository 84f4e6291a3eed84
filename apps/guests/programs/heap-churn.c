#define SLOTS 2000
static unsigned char *block[SLOTS];
static size_t len[SLOTS];

int main(void)
{
    uint64_t seed = 5;
    for (int r = 1; r <= ROUNDS * 2; r++) {
        for (int n = 0; n < 1500; n++) {
            seed = mix(seed + n);
            int i = seed % SLOTS;
            if (block[i] && (seed >> 12) % 3 == 0) {
                free(block[i]);
                block[i] = NULL;
                continue;
            }
            size_t want = (seed >> 20) % 50 ? 1 + (seed >> 26) % 700 : 1 + (seed >> 26) % 300000;
            block[i] = realloc(block[i], want);
            CHECK(block[i]);
            memset(block[i], i + r, want);
            len[i] = want;
        }
        uint64_t sum = 0;
        for (int i = 0; i < SLOTS; i++)
            if (block[i])
                sum = mix(sum + checksum(block[i], len[i] < 256 ? len[i] : 256));
        say("round %d %016llx", r, (unsigned long long)sum);
    }
    say("ok");
    return 0;
}
