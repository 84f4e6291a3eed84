#include <fenv.h>
#include <immintrin.h>

int main(void)
{
    int ways[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    volatile double one = 1.0, three = 3.0;
    volatile long double wide = 1.0L;
    for (int r = 1; r <= ROUNDS * 2; r++) {
        CHECK(fesetround(ways[r % 4]) == 0);
        unsigned csr = _mm_getcsr();
        say("round %d set", r);
        CHECK(_mm_getcsr() == csr && fegetround() == ways[r % 4]);
        double third = one / three;
        wide = wide / 3.0L + 1.0L;
        uint64_t bits;
        memcpy(&bits, &third, 8);
        say("round %d %016llx %.18Lg", r, (unsigned long long)bits, wide);
    }
    say("ok");
    return 0;
}
