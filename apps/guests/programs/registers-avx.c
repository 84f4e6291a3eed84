/* The registers are loaded, a call is made without the compiler knowing, and they are stored again. */
static unsigned char in[16][32], out[16][32];

#define EACH(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOAD(n) "vmovdqu " #n "*32(%[in]), %%ymm" #n "\n"
#define STORE(n) "vmovdqu %%ymm" #n ", " #n "*32(%[out])\n"

static long held(long nr, long a, long b, long c)
{
    long result;
    register long r10 __asm__("r10") = 0;
    __asm__ volatile(EACH(LOAD) "syscall\n" EACH(STORE)
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), [in] "r"(in), [out] "r"(out), "r"(r10)
                     : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
                       "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15");
    return result;
}

int main(void)
{
    if (!__builtin_cpu_supports("avx")) {
        say("ok");
        return 0;
    }
    for (int r = 1; r <= ROUNDS * 3; r++) {
        for (int i = 0; i < 512; i++)
            in[i / 32][i % 32] = mix(r * 512 + i);
        char line[64];
        int len = sprintf(line, "round %d through a write\n", r);
        CHECK(held(SYS_write, 1, (long)line, len) == len);
        CHECK(memcmp(in, out, sizeof in) == 0);
        memset(out, 0, sizeof out);
        CHECK(held(SYS_getppid, 0, 0, 0) > 0 && memcmp(in, out, sizeof in) == 0);
        struct timespec nap = {.tv_nsec = 500000};
        CHECK(held(SYS_nanosleep, (long)&nap, 0, 0) == 0 && memcmp(in, out, sizeof in) == 0);
    }
    say("ok");
    return 0;
}
