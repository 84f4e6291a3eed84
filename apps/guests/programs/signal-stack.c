#include <sys/wait.h>

static char stack[65536];
static volatile sig_atomic_t inside, flags;
static void handler(int sig)
{
    char here;
    stack_t now;
    (void)sig;
    inside = &here >= stack && &here < stack + sizeof stack;
    CHECK(sigaltstack(NULL, &now) == 0);
    flags = now.ss_flags;
    say("in the handler");
}

/* A stack without room for a frame, or that may not be written, is a fault; its handler has another stack. */
static volatile sig_atomic_t faults;

static void fault(int sig)
{
    char here;
    CHECK(sig == SIGSEGV && !(&here >= stack && &here < stack + sizeof stack));
    faults++;
}

/* One frame upon the other until there is no room: the process ends. */
static volatile int *depth;

static void nested(int sig)
{
    if (++*depth < 1000)
        raise(sig);
}

static int overflows(char *memory)
{
    stack_t upper = {.ss_sp = memory + 65536, .ss_size = 65536};
    struct sigaction nests = {.sa_handler = nested, .sa_flags = SA_ONSTACK | SA_NODEFER};
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        sigaltstack(&upper, NULL);
        sigaction(SIGTERM, &nests, NULL);
        raise(SIGTERM);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    return WTERMSIG(status);
}

static void unused(int sig)
{
    CHECK(sig == 0);
}

static volatile sig_atomic_t disarmed;

static void disarms(int sig)
{
    stack_t now;
    (void)sig;
    CHECK(sigaltstack(NULL, &now) == 0);
    disarmed = now.ss_flags;
}

static void without_room(int r)
{
    struct sigaction on_fault = {.sa_handler = fault};
    struct sigaction nothing = {.sa_handler = unused, .sa_flags = SA_ONSTACK};
    if (r == ROUNDS / 2) {
        char *memory = mmap(0, 4 * 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(memory != MAP_FAILED);
        depth = (int *)(memory + 3 * 65536);
        int end = overflows(memory);
        CHECK(*depth > 5 && *depth < 200);
        /* Nothing was written below it (but by the handler's own calls). */
        for (int i = 0; i < 65536 - 4096; i++)
            CHECK(memory[i] == 0);
        say("round %d: no room for a frame: %d", r, end);
    }
    CHECK(sigaction(SIGSEGV, &on_fault, NULL) == 0 && sigaction(SIGTERM, &nothing, NULL) == 0);
    faults = 0;
    char *sealed = mmap(0, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t there = {.ss_sp = sealed, .ss_size = 65536}, mine = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK(sealed != MAP_FAILED && sigaltstack(&there, NULL) == 0);
    raise(SIGTERM);
    CHECK(faults == 1);
    say("round %d: the stack may not be written", r);
    struct sigaction leaves = {.sa_handler = disarms, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGTERM, &leaves, NULL) == 0);
    mine.ss_flags = 1U << 31; /* SS_AUTODISARM */
    CHECK(sigaltstack(&mine, NULL) == 0);
    raise(SIGTERM);
    CHECK(sigaltstack(NULL, &there) == 0 && there.ss_sp == stack);
    say("round %d: %x while the handler ran, then %x", r, disarmed, there.ss_flags);
    mine.ss_flags = 3;
    CHECK(sigaltstack(&mine, NULL) == -1 && errno == EINVAL);
    mine.ss_flags = 0;
    CHECK(munmap(sealed, 65536) == 0 && sigaltstack(&mine, NULL) == 0);
}

int main(void)
{
    stack_t mine = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    CHECK(sigaltstack(&mine, NULL) == 0);
    struct sigaction there = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    struct sigaction here = {.sa_handler = handler};
    CHECK(sigaction(SIGUSR1, &there, NULL) == 0 && sigaction(SIGUSR2, &here, NULL) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        raise(SIGUSR1);
        CHECK(inside && flags == SS_ONSTACK);
        say("round %d on its stack", r);
        raise(SIGUSR2);
        CHECK(!inside && flags == 0);
        CHECK(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack && now.ss_size == sizeof stack);
        say("round %d on ours", r);
        if (r % 5 == 0)
            without_room(r);
    }
    say("ok");
    return 0;
}
