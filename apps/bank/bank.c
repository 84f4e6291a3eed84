/* The bank in C: the same contract as src/main.rs, over vista.h.
 *
 *     bank IMAGE RIO ACKNOWLEDGED [TRANSACTIONS]
 *
 * With RIO "pages" it declares no range: written pages are found at commit. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vista.h"

enum { ACCOUNTS = 10000, TELLERS = 100, BRANCHES = 10, HISTORY = 4096 };

struct entry {
    uint32_t account, teller;
    int64_t amount;
};

struct bank {
    uint64_t transactions;
    int64_t branches[BRANCHES], tellers[TELLERS], accounts[ACCOUNTS];
    struct entry history[HISTORY];
};

static vista *v;
static int declare;

static void must(int status, const char *what)
{
    if (status != VISTA_OK) {
        fprintf(stderr, "bank: %s: %s\n", what, vista_error(v));
        exit(1);
    }
}

static void change(void *start, size_t size)
{
    if (declare)
        must(vista_set_range(v, start, size), "set_range");
}

static void add(int64_t *balance, int64_t amount)
{
    change(balance, sizeof *balance);
    *balance += amount;
}

static void transfer(struct bank *bank, uint64_t random)
{
    uint32_t account = (random >> 33) % ACCOUNTS, teller = account % TELLERS;
    int64_t amount = (int64_t)((random >> 20) % 1000) - 500;
    struct entry *entry = &bank->history[bank->transactions % HISTORY];

    must(vista_begin_transaction(v), "begin");
    add(&bank->accounts[account], amount);
    add(&bank->tellers[teller], amount);
    add(&bank->branches[teller % BRANCHES], amount);
    change(entry, sizeof *entry);
    *entry = (struct entry){account, teller, amount};
    change(&bank->transactions, sizeof bank->transactions);
    bank->transactions++;
    must(vista_end_transaction(v), "end");
}

static int64_t sum(const int64_t *balances, size_t count)
{
    int64_t total = 0;
    while (count--)
        total += *balances++;
    return total;
}

static void check(const struct bank *bank, uint64_t acknowledged)
{
    int64_t accounts = sum(bank->accounts, ACCOUNTS), tellers = sum(bank->tellers, TELLERS);
    int64_t branches = sum(bank->branches, BRANCHES);

    if (accounts != tellers || tellers != branches) {
        fprintf(stderr, "bank: inconsistent: sums %ld, %ld, %ld\n", (long)accounts, (long)tellers,
                (long)branches);
        exit(1);
    }
    if (bank->transactions < acknowledged || bank->transactions > acknowledged + 1) {
        fprintf(stderr, "bank: inconsistent: %lu transactions, %lu acknowledged\n",
                (unsigned long)bank->transactions, (unsigned long)acknowledged);
        exit(1);
    }
}

static void announce(uint64_t done)
{
    if (write(1, &done, sizeof done) < 0)
        return; /* whoever watched is gone: no reason to stop */
}

int main(int argc, char **argv)
{
    uint64_t count = UINT64_MAX, random;
    enum vista_rio rio = VISTA_TMPFS;
    struct bank *bank;

    if (argc < 4) {
        fprintf(stderr, "usage: bank IMAGE RIO ACKNOWLEDGED [TRANSACTIONS]\n");
        return 2;
    }
    if (strcmp(argv[2], "disk") == 0)
        rio = VISTA_DISK;
    if (strcmp(argv[2], "pmem") == 0)
        rio = VISTA_PMEM;
    declare = strcmp(argv[2], "pages") != 0;
    if (argc > 4)
        count = strtoull(argv[4], NULL, 10);

    v = vista_init(argv[1], rio, 4 << 20);
    if (!v) {
        fprintf(stderr, "bank: %s\n", vista_error(NULL));
        return 1;
    }
    bank = vista_map(v, "bank", sizeof *bank, NULL, declare ? VISTA_RAW : VISTA_PAGES);
    if (!bank) {
        fprintf(stderr, "bank: %s\n", vista_error(v));
        return 1;
    }
    check(bank, strtoull(argv[3], NULL, 10));
    announce(bank->transactions);
    for (random = bank->transactions; count-- > 0;) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        transfer(bank, random);
        announce(bank->transactions);
    }
    check(bank, bank->transactions);
    vista_close(v);
    return 0;
}
