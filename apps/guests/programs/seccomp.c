/* Filters of system calls: every action, several filters, those of threads, of children and behind an exec; what the
 * kernel refuses; strict mode. The filters are about two calls that nobody else makes. */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/wait.h>
#include <ucontext.h>

#define MAX SYS_sched_get_priority_max
#define MIN SYS_sched_get_priority_min
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ALLOWED ANSWER(SECCOMP_RET_ALLOW)
#define LENGTH(array) (int)(sizeof(array) / sizeof *(array))
#define INSTALL(flags, ...)                                                                                            \
    ({                                                                                                                 \
        struct sock_filter code[] = {__VA_ARGS__};                                                                     \
        install(flags, code, LENGTH(code));                                                                            \
    })

extern char **environ;
static char *self;

static long install(int flags, struct sock_filter *code, int len)
{
    struct sock_fprog program = {len, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* One call is answered, all others are allowed. */
static long answers(int flags, int call, unsigned answer)
{
    return INSTALL(flags, LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3), LOAD(nr),
                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), ANSWER(answer), ALLOWED);
}

/* A result, and the error only if it is one. */
static void told(const char *what, long r)
{
    say("  %s: %ld, errno %d", what, r, r < 0 ? errno : 0);
}

static int of_call(long call, long arg)
{
    errno = 0;
    long r = syscall(call, arg);
    return r < 0 ? -errno : r;
}

static int wait_for(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* A call whose registers are all known, from a place of its own; the address behind it. */
static uintptr_t behind;
static long from_here(void)
{
    register long r10 __asm__("r10") = 40, r8 __asm__("r8") = 50, r9 __asm__("r9") = 60;
    long r;
    __asm__ volatile("lea 1f(%%rip), %%rbx\n\tmov %%rbx, %1\n\tmov $146, %%eax\n\tsyscall\n1:"
                     : "=&a"(r), "=m"(behind)
                     : "D"(1L), "S"(20L), "d"(30L), "r"(r10), "r"(r8), "r"(r9)
                     : "rbx", "rcx", "r11", "memory");
    return r;
}

static void trapped(int signal, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    int same = (uintptr_t)info->si_call_addr == (uintptr_t)regs[REG_RIP] && regs[REG_RCX] == regs[REG_RIP];
    sigset_t set;
    CHECK(sigprocmask(SIG_BLOCK, 0, &set) == 0 && sigismember(&set, SIGSYS) == 1);
    say("  trap %d: code %d, data %d, call %d, arch %x, place %d, rax %d, args %d", signal, info->si_code, info->si_errno,
        info->si_syscall, info->si_arch, same, (int)regs[REG_RAX], (int)regs[REG_RDI]);
    if ((uintptr_t)info->si_call_addr == behind)
        CHECK(regs[REG_R10] == 40 && regs[REG_RSI] == 20 && regs[REG_RDX] == 30 && regs[REG_R8] == 50 && regs[REG_R9] == 60);
    regs[REG_RAX] = 4000 + info->si_errno;
}

static void handle(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSYS, &action, 0) == 0);
}

static void no_new_privs(void)
{
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
}

/* What the kernel does not take. */
static void bad_programs(void)
{
#define BAD(what, ...) told(what, INSTALL(0, __VA_ARGS__))
    BAD("no answer", LOAD(nr));
    BAD("a jump to the end", BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1), ALLOWED);
    BAD("a jump behind the end", BPF_STMT(BPF_JMP | BPF_JA, 1), ALLOWED);
    BAD("a jump far away", BPF_STMT(BPF_JMP | BPF_JA, -1), ALLOWED);
    BAD("half a word", BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), ALLOWED);
    BAD("behind the data", BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), ALLOWED);
    BAD("a byte", BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), ALLOWED);
    BAD("by index", BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), ALLOWED);
    BAD("memory 16", BPF_STMT(BPF_ST, 16), ALLOWED);
    BAD("memory unwritten", BPF_STMT(BPF_LD | BPF_MEM, 3), ALLOWED);
    BAD("memory written on one way", LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1), BPF_STMT(BPF_ST, 3),
        BPF_STMT(BPF_LD | BPF_MEM, 3), ALLOWED);
    BAD("by zero", BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ALLOWED);
    BAD("a remainder", BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ALLOWED);
    BAD("a long shift", BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), ALLOWED);
    BAD("the answer X", BPF_STMT(BPF_RET | BPF_X, 0));
    BAD("no code", BPF_STMT(0xffff, 0), ALLOWED);
    struct sock_filter one[] = {ALLOWED};
    struct sock_fprog nowhere = {1, (void *)8};
    told("no instruction", install(0, one, 0));
    told("too many", install(0, one, 4097));
    told("from nowhere", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &nowhere));
    told("no program", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 0));
    told("no such flag", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1 << 20, 0));
    told("killable", install(1 << 5, one, 1));
    told("no operation", syscall(SYS_seccomp, 77, 0, 0));
    told("strict with flags", syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0));
    told("no mode", prctl(PR_SET_SECCOMP, 3, 0));
    told("mode from nowhere", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 8));
    unsigned actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
                          SECCOMP_RET_TRACE,        SECCOMP_RET_LOG,         SECCOMP_RET_ALLOW, 0x10000, 1};
    for (int i = 0; i < LENGTH(actions); i++)
        say("  action %x: %d", actions[i], (int)syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, actions + i));
    told("action nowhere", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, 8));
}

/* The machine: what a program computes of the arguments. */
static void computes(void)
{
    long r = INSTALL(0, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MIN, 1, 0), ALLOWED, LOAD(args[0]),
                  BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_ST, 5), BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 7),
                  BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 0x55),
                  BPF_STMT(BPF_ALU | BPF_LSH | BPF_X, 0), BPF_STMT(BPF_STX, 6), BPF_STMT(BPF_LDX | BPF_MEM, 5),
                  BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_NEG, 0),
                  BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 3), BPF_STMT(BPF_LDX | BPF_W | BPF_LEN, 0),
                  BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x3ff),
                  BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1, 0, 1), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, 2),
                  BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 900, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 0xffff),
                  BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 800, 0, 1), ANSWER(SECCOMP_RET_LOG),
                  BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0));
    CHECK(r == 0);
    for (int arg = 1; arg < 12; arg++)
        say("  computed of %d: %d", arg, of_call(MIN, arg));
}

static void *makes_call(void *unused)
{
    syscall(MAX, 1);
    say("  not killed");
    return unused;
}

/* Whoever has filters cannot have it. */
static void strict(long r)
{
    told("strict", r);
    if (r < 0)
        _exit(9);
}

/* A child that a filter, or strict mode, ends; or what becomes of its calls. */
static void child(int way)
{
    pthread_t thread;
    sigset_t set;
    handle();
    switch (way) {
    case 0:
        CHECK(answers(0, MAX, SECCOMP_RET_KILL_PROCESS) == 0 && pthread_create(&thread, 0, makes_call, 0) == 0);
        pthread_join(thread, 0);
        break;
    case 1:
        CHECK(answers(0, MAX, SECCOMP_RET_KILL_THREAD) == 0);
        syscall(MAX, 1);
        break;
    case 2:
        CHECK(answers(0, MAX, SECCOMP_RET_KILL_THREAD) == 0 && pthread_create(&thread, 0, makes_call, 0) == 0);
        CHECK(pthread_join(thread, 0) == 0);
        say("  one thread is gone");
        _exit(7);
    case 3:
        CHECK(answers(0, MAX, SECCOMP_RET_TRAP) == 0 && signal(SIGSYS, SIG_IGN) != SIG_ERR);
        syscall(MAX, 1);
        break;
    case 4:
        CHECK(answers(0, MAX, SECCOMP_RET_TRAP) == 0 && sigemptyset(&set) == 0 && sigaddset(&set, SIGSYS) == 0);
        CHECK(sigprocmask(SIG_BLOCK, &set, 0) == 0);
        syscall(MAX, 1);
        break;
    case 5:
        strict(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        syscall(SYS_getpid);
        break;
    case 6:
        strict(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0));
        syscall(SYS_exit, 5);
        break;
    case 7:
        strict(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        prctl(PR_GET_SECCOMP);
        break;
    case 8: /* no action is of this number */
        CHECK(answers(0, MAX, 0x10000) == 0);
        syscall(MAX, 1);
        break;
    case 9:
        computes();
        strict(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        break;
    case 10: {
        struct sock_filter code[] = {LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_time, 2, 0),
                                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 1, 0), ALLOWED,
                                     ANSWER(SECCOMP_RET_ERRNO | 3)};
        CHECK(install(0, code, LENGTH(code)) == 0);
        struct timespec t;
        say("  the time by a call: %d %d, else: %d %d", of_call(SYS_time, 0), of_call(SYS_clock_gettime, 0), time(0) > 0,
            clock_gettime(CLOCK_REALTIME_COARSE, &t));
        _exit(10);
    }
    case 11: /* seccomp itself is forbidden from now on */
        CHECK(answers(SECCOMP_FILTER_FLAG_LOG, SYS_seccomp, SECCOMP_RET_ERRNO | 19) == 0);
        told("once more", answers(0, MAX, SECCOMP_RET_ALLOW));
        say("  by prctl: %d, mode %d", prctl(PR_SET_SECCOMP, 3), prctl(PR_GET_SECCOMP));
        _exit(11);
    }
    say("  not ended");
    _exit(99);
}
#define WAYS 12

/* What a program finds that a filtered one has made. */
static int look(const char *who)
{
    say("  %s: mode %d, max %d, min %d", who, prctl(PR_GET_SECCOMP), of_call(MAX, SCHED_FIFO), of_call(MIN, SCHED_FIFO));
    return 3;
}

static void descendants(int r)
{
    pid_t pid = r % 2 ? fork() : vfork();
    if (pid == 0) {
        if (r % 3)
            _exit(look(r % 2 ? "fork" : "vfork"));
        execl(self, self, "look", (char *)0);
        _exit(98);
    }
    say("  ended: %d", wait_for(pid));
    char *args[] = {self, "look", 0};
    if (r % 4 == 0) {
        CHECK(posix_spawn(&pid, self, 0, 0, args, environ) == 0);
        say("  ended: %d", wait_for(pid));
    }
}

static pthread_barrier_t turn;
static volatile pid_t number;
static volatile int parts;

static void *other(void *unused)
{
    number = gettid();
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_barrier_wait(&turn);
        if (parts) {
            CHECK(answers(0, MIN, SECCOMP_RET_ERRNO | 44) == 0);
            parts = 0;
        }
        say(" thread %d: mode %d, nnp %d, max %d, min %d", r, prctl(PR_GET_SECCOMP), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
            of_call(MAX, SCHED_RR), of_call(MIN, SCHED_RR));
        pthread_barrier_wait(&turn);
    }
    return unused;
}

/* A thread that is in a call when it is given a filter which forbids that. */
static int ends[2];

static void *waits(void *unused)
{
    char byte = 0;
    sigset_t all;
    /* (The end of a child may have the call made again, and then it is asked for.) */
    CHECK(sigfillset(&all) == 0 && pthread_sigmask(SIG_BLOCK, &all, 0) == 0);
    for (int i = 0; i < 2; i++) {
        int r = read(ends[0], &byte, 1);
        say(" waiter: %d, errno %d, byte %d", r, r < 0 ? errno : 0, byte);
    }
    return unused;
}

static void forbid_wait(void)
{
    usleep(20000);
    long r = INSTALL(SECCOMP_FILTER_FLAG_TSYNC, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 0, 3), LOAD(args[0]),
                     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ends[0], 0, 1), ANSWER(SECCOMP_RET_ERRNO | 71), ALLOWED);
    CHECK(r == 0);
}

static void *long_filters(void *unused)
{
    static struct sock_filter code[3000];
    for (int k = 0; k < LENGTH(code); k++)
        code[k] = (struct sock_filter)LOAD(nr);
    code[LENGTH(code) - 1] = (struct sock_filter)ALLOWED;
    CHECK(install(0, code, LENGTH(code)) == 0 && install(0, code, LENGTH(code)) == 0);
    CHECK(prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER);
    return unused;
}

static void without_rights(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0)
            CHECK(setresuid(65534, 65534, 65534) == 0);
        told("without rights", answers(0, MAX, SECCOMP_RET_ALLOW));
        no_new_privs();
        say("with none to come: %ld", answers(0, MAX, SECCOMP_RET_ALLOW));
        _exit(0);
    }
    CHECK(wait_for(pid) == 0);
}

int main(int argc, char **argv)
{
    struct rlimit none = {0, 0};
    self = argv[0];
    if (argc > 1)
        return look("exec");
    handle();
    CHECK(setrlimit(RLIMIT_CORE, &none) == 0);
    without_rights();
    pthread_t thread, waiter;
    CHECK(pthread_barrier_init(&turn, 0, 2) == 0 && pthread_create(&thread, 0, other, 0) == 0);
    CHECK(pipe(ends) == 0 && pthread_create(&waiter, 0, waits, 0) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        long made;
        switch (r) {
        case 2: no_new_privs(); bad_programs(); break;
        case 4: CHECK(answers(0, MAX, SECCOMP_RET_ERRNO | 1234) == 0); break;
        case 6: CHECK(answers(0, MAX, SECCOMP_RET_ERRNO | 77) == 0); break;
        case 8: CHECK(answers(SECCOMP_FILTER_FLAG_TSYNC, MIN, SECCOMP_RET_TRACE | 3) == 0); break;
        case 9: forbid_wait(); break;
        case 10: CHECK(answers(0, MAX, SECCOMP_RET_TRAP | 55) == 0); break;
        case 12: /* by the place of the call */
            from_here();
            made = INSTALL(0, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MAX, 0, 5), LOAD(instruction_pointer),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)behind, 0, 3),
                          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(behind >> 32), 0, 1),
                          ANSWER(SECCOMP_RET_TRAP | 66), ALLOWED);
            CHECK(made == 0);
            break;
        case 14: parts = 1; break;
        case 16: {
            pid_t stray = answers(SECCOMP_FILTER_FLAG_TSYNC, MAX, SECCOMP_RET_ALLOW);
            made = answers(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, MAX, SECCOMP_RET_ALLOW);
            say("the thread has others: %d, %ld, errno %d", stray == number, made, errno);
            break;
        }
        case 18: /* more than there is room for at once */
            for (int i = 0; i < 12; i++) {
                pthread_t one;
                CHECK(pthread_create(&one, 0, long_filters, 0) == 0 && pthread_join(one, 0) == 0);
            }
            break;
        case 20: CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &(struct sock_fprog){1, (struct sock_filter[]){ALLOWED}}) == 0); break;
        case 24: CHECK(write(ends[1], "x", 1) == 1 && pthread_join(waiter, 0) == 0); break;
        }
        say("round %d: mode %d, max %d, min %d, from here %ld", r, prctl(PR_GET_SECCOMP), of_call(MAX, SCHED_FIFO),
            of_call(MIN, SCHED_FIFO), from_here());
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
        if (r > 3) {
            descendants(r);
        } else {
            compute(1);
        }
        int ways[] = {r % WAYS, 4 + r};
        for (int i = 0; i < (r < 4 ? 2 : 1); i++) {
            pid_t pid = fork();
            if (pid == 0)
                child(ways[i]);
            say(" way %d: %d", ways[i], wait_for(pid));
        }
    }
    CHECK(pthread_join(thread, 0) == 0);
    say("ok");
    return 0;
}
