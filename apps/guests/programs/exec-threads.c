/* Executes itself from a process with several threads: from the first one, from another one, from another one when the
   first has exited, from a child of such a process. What an exec keeps is kept, what it ends is gone. */
#include <sys/wait.h>
#define EXECS 8

static int stage, mode;
static char *self, numbers[8][32];
static pthread_mutex_t *robust;

static void *waits(void *arg)
{
    switch ((intptr_t)arg % 4) {
    case 0:
        for (;;)
            pause();
    case 1: {
        int fds[2];
        char byte;
        CHECK(pipe(fds) == 0);
        for (;;)
            CHECK(read(fds[0], &byte, 1) < 0);
    }
    case 2: {
        static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
        pthread_mutex_lock(&held);
        pthread_mutex_lock(&held);
        break;
    }
    default:
        for (;;) {
            compute(1);
            usleep(1000);
        }
    }
    return arg;
}

static void *holds(void *arg)
{
    CHECK(pthread_mutex_lock(robust) == 0);
    *(volatile int *)arg = 1;
    for (;;)
        pause();
}

static void go(void)
{
    if (stage % 2)
        CHECK(pthread_kill(pthread_self(), SIGUSR1) == 0);
    else
        CHECK(kill(getpid(), SIGRTMIN + 3) == 0);
    snprintf(numbers[0], 32, "%d", stage + 1);
    snprintf(numbers[1], 32, "%d", getpid());
    execl(self, self, numbers[0], numbers[1], numbers[2], numbers[3], (char *)NULL);
    say("exec: errno %d", errno);
    _exit(1);
}

static void *goes(void *first)
{
    if (mode == 2)
        pthread_join(*(pthread_t *)first, NULL);
    go();
    return NULL;
}

static void handler(int signo)
{
    (void)signo;
}

static int threads(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void look(char **argv)
{
    sigset_t set, pending;
    CHECK(getpid() == atoi(argv[2]) && gettid() == getpid());
    CHECK(sigprocmask(SIG_BLOCK, NULL, &set) == 0);
    CHECK(sigismember(&set, SIGUSR1) && sigismember(&set, SIGRTMIN + 3) && !sigismember(&set, SIGTERM));
    CHECK(sigpending(&pending) == 0);
    CHECK(sigismember(&pending, stage % 2 ? SIGRTMIN + 3 : SIGUSR1));
    CHECK(!sigismember(&pending, stage % 2 ? SIGUSR1 : SIGRTMIN + 3));
    siginfo_t info;
    CHECK(sigwaitinfo(&set, &info) == (stage % 2 ? SIGRTMIN + 3 : SIGUSR1));
    CHECK(info.si_pid == getpid());
    struct sigaction action;
    CHECK(sigaction(SIGUSR2, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    CHECK(sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
    stack_t stack;
    CHECK(sigaltstack(NULL, &stack) == 0 && stack.ss_flags == SS_DISABLE);
    struct itimerval left;
    CHECK(getitimer(ITIMER_REAL, &left) == 0 && left.it_value.tv_sec > 900);
    struct itimerspec none;
    CHECK(syscall(SYS_timer_gettime, atoi(argv[3]), &none) < 0 && errno == EINVAL);
    char name[32] = {0}, comm[32] = {0};
    CHECK(prctl(PR_GET_NAME, name) == 0 && strncmp(name, "exec-threads", 12) == 0);
    int fd = open("/proc/self/comm", O_RDONLY);
    CHECK(fd == 3 && read(fd, comm, 31) > 0 && strncmp(comm, name, strlen(name)) == 0 && close(fd) == 0);
    CHECK(threads() == 1);
    CHECK(syscall(SYS_tgkill, getpid(), getpid(), 0) == 0 && kill(getpid(), 0) == 0);
    int kept = open(argv[4], O_RDWR);
    CHECK(kept == 3);
    robust = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, kept, 0);
    CHECK(robust != MAP_FAILED && close(kept) == 0);
    CHECK(pthread_mutex_lock(robust) == EOWNERDEAD);
    say("stage %d: one thread, the process's own", stage);
}

int main(int argc, char **argv)
{
    self = argv[0];
    stage = argc > 1 ? atoi(argv[1]) : 0;
    if (argc > 1)
        look(argv);
    if (stage == EXECS) {
        CHECK(unlink(argv[4]) == 0);
        say("ok");
        return 0;
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    CHECK(pthread_sigmask(SIG_SETMASK, &set, NULL) == 0);
    mode = stage % 4;
    strcpy(numbers[3], "shared");
    int fd = open(numbers[3], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd == 3 && ftruncate(fd, 4096) == 0);
    CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) == 4);
    robust = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(robust != MAP_FAILED);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    CHECK(pthread_mutex_init(robust, &attr) == 0);
    struct sigaction action = {.sa_handler = handler};
    CHECK(sigaction(SIGUSR2, &action, NULL) == 0 && signal(SIGHUP, SIG_IGN) != SIG_ERR);
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    CHECK(sigaltstack(&stack, NULL) == 0);
    struct itimerval timer = {.it_value = {1000, 0}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    int id;
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == 0);
    snprintf(numbers[2], 32, "%d", id);
    pthread_t thread, first = pthread_self();
    for (intptr_t i = 0; i < 4; i++)
        CHECK(pthread_create(&thread, NULL, waits, (void *)i) == 0);
    volatile int held = 0;
    CHECK(pthread_create(&thread, NULL, holds, (void *)&held) == 0);
    while (!held)
        sched_yield();
    if (mode == 0)
        go();
    if (mode == 3) {
        /* A child has one thread only, and it is not its parent's first. */
        pid_t child = fork();
        if (child > 0) {
            int status;
            while (waitpid(child, &status, 0) < 0)
                CHECK(errno == EINTR);
            CHECK(WIFEXITED(status));
            _exit(WEXITSTATUS(status));
        }
        CHECK(child == 0 && setitimer(ITIMER_REAL, &timer, NULL) == 0);
        CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == 0);
        /* The robust mutex is held by a thread that is not here. */
        CHECK(pthread_mutex_init(robust, &attr) == 0 && pthread_mutex_lock(robust) == 0);
    }
    CHECK(pthread_create(&thread, NULL, goes, &first) == 0);
    if (mode == 2)
        pthread_exit(NULL);
    for (;;)
        pause();
}
