#include <setjmp.h>
static unsigned char *page;
static sigjmp_buf back;
static volatile sig_atomic_t faults;

static void mend(int sig, siginfo_t *info, void *context)
{
    (void)context;
    if (sig == SIGFPE)
        siglongjmp(back, 2);
    if (info->si_addr == (void *)(page + 123) && mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0)
        faults++;
    else
        siglongjmp(back, 1);
}

int main(void)
{
    struct sigaction act = {.sa_sigaction = mend, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &act, NULL) == 0 && sigaction(SIGFPE, &act, NULL) == 0);
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED && mprotect(page + 4096, 4096, PROT_NONE) == 0);
    volatile int zero = 0;
    for (volatile int r = 1; r <= ROUNDS; r++) {
        CHECK(mprotect(page, 4096, PROT_NONE) == 0);
        say("round %d closed", r);
        ((volatile unsigned char *)page)[123] = r;
        CHECK(faults == r && page[123] == r);
        say("round %d mended", r);
        int how = sigsetjmp(back, 1);
        if (how == 0)
            ((volatile unsigned char *)page)[5000] = 1;
        CHECK(how == 1);
        how = sigsetjmp(back, 1);
        if (how == 0)
            zero = 12345 / zero;
        CHECK(how == 2);
        say("round %d jumped", r);
    }
    say("ok");
    return 0;
}
