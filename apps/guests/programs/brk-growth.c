int main(void)
{
    char *base = sbrk(0), *end = base;
    for (int r = 1; r <= ROUNDS * 2; r++) {
        int pages = 1 + mix(r) % 60;
        CHECK(sbrk(0) == end && brk(end + pages * 4096) == 0);
        for (int i = 0; i < pages; i++) {
            CHECK(end[i * 4096] == 0);
            end[i * 4096] = r;
        }
        end += pages * 4096;
        say("round %d grew to %ld", r, (long)(end - base));
        if (r % 4 == 0) {
            size_t back = (end - base) / 3 & ~4095ul;
            end -= back;
            CHECK(brk(end) == 0 && sbrk(0) == end);
            say("round %d shrank to %ld", r, (long)(end - base));
        }
        say("round %d %016llx", r, (unsigned long long)checksum(base, end - base));
    }
    say("ok");
    return 0;
}
