int main(void)
{
    for (int n = 1; n <= 300; n++) {
        say("%d %016llx", n, (unsigned long long)mix(n));
        if (n % 25 == 0)
            CHECK(fsync(1) == 0);
        if (n % 50 == 0)
            compute(100);
    }
    say("at %lld", (long long)lseek(1, 0, SEEK_CUR));
    return 0;
}
