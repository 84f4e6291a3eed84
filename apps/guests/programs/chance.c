/* Chance of every kind, each value shown as soon as it is known, chained to all that were shown before. */
#include <sys/random.h>

int main(void)
{
    uint64_t chain = 0;
    int urandom = open("/dev/urandom", O_RDONLY);
    CHECK(urandom >= 0);
    for (int n = 1; n <= 400; n++) {
        uint64_t value = 0;
        struct timespec now;
        switch (n % 4) {
        case 0:
            CHECK(getrandom(&value, sizeof value, 0) == sizeof value);
            break;
        case 1:
            CHECK(read(urandom, &value, sizeof value) == sizeof value);
            break;
        case 2:
            CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
            value = mix(now.tv_sec * 1000000000ull + now.tv_nsec);
            break;
        case 3:
            CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
            value = now.tv_nsec;
            break;
        }
        chain = mix(chain ^ value);
        say("%d %016llx %016llx", n, (unsigned long long)value, (unsigned long long)chain);
    }
    say("ok");
    return 0;
}
