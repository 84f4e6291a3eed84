/* Where mmap puts things: at the address that is wished for if it is free, below 2 GB when asked to, and never over what
 * is there already. (SBCL's heap and others give up if their wish is not granted.) */

static char *map(uintptr_t wish, size_t len, int flags)
{
    char *at = mmap((void *)wish, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    CHECK(at[0] == 0 && at[len - 1] == 0);
    at[0] = at[len - 1] = 1;
    return at;
}

int main(void)
{
    for (int r = 1; r <= ROUNDS; r++) {
        uintptr_t wish = 0x50000000 + (uintptr_t)r * 0x100000, high = 0x1000000000 + (uintptr_t)r * 0x40000000;
        char *low = map(wish, 0x80000, MAP_32BIT | MAP_NORESERVE), *big = map(high, 0x4000000, MAP_NORESERVE);
        CHECK(low == (char *)wish && big == (char *)high);
        char *other = map(wish, 0x2000, 0);
        CHECK(other && (other >= low + 0x80000 || other + 0x2000 <= low));
        char *elsewhere = map(wish + 0x1000, 0x2000, MAP_32BIT);
        CHECK(elsewhere && (uintptr_t)elsewhere < 0x80000000 && elsewhere != low + 0x1000);
        CHECK(!map(wish, 0x1000, MAP_FIXED_NOREPLACE) && errno == EEXIST);
        char *unaligned = map(high + 0x8000123, 0x1000, 0);
        CHECK(unaligned == (char *)high + 0x8000000);
        CHECK(munmap(unaligned, 0x1000) == 0 && munmap(elsewhere, 0x2000) == 0 && munmap(other, 0x2000) == 0);
        CHECK(low[0] == 1 && big[0x4000000 - 1] == 1);
        if (r % 2)
            CHECK(munmap(low, 0x80000) == 0 && munmap(big, 0x4000000) == 0);
        say("round %d", r);
    }
    say("ok");
    return 0;
}
