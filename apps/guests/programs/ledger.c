/* A static program: a hash table that grows on the heap, and a ledger that it writes beside its output. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    uint64_t key, sum;
    char note[];
};

static struct entry *table[4096];

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

static struct entry *find(uint64_t key)
{
    struct entry **at = &table[mix(key) % 4096];
    for (; *at; at = &(*at)->next)
        if ((*at)->key == key)
            return *at;
    size_t len = 8 + mix(key) % 90;
    *at = calloc(1, sizeof **at + len);
    if (!*at)
        abort();
    (*at)->key = key;
    memset((*at)->note, 'a' + key % 26, len - 1);
    return *at;
}

int main(void)
{
    FILE *ledger = fopen("ledger.txt", "w");
    if (!ledger)
        return 1;
    for (int round = 1; round <= 200; round++) {
        uint64_t sum = 0;
        for (uint64_t n = 0; n < 4000; n++) {
            struct entry *e = find(mix(n * round) % 50000);
            e->sum += mix(e->sum + n);
            sum ^= e->sum + strlen(e->note);
        }
        fprintf(ledger, "%d %016llx\n", round, (unsigned long long)sum);
        if (round % 20 == 0)
            fflush(ledger);
        printf("round %d %016llx\n", round, (unsigned long long)sum);
        fflush(stdout);
    }
    return fclose(ledger) ? 1 : 0;
}
