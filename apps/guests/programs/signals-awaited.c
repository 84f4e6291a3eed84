/* Signals that are waited for (sigwaitinfo(2)): from another process, from an own child that ends, one that is ignored, and
 * one whose default would end the process; while another thread and the parent have commits made. */
#include <sys/wait.h>

static int taken_of(int signo, siginfo_t *info)
{
    return info->si_signo == signo && (info->si_code == SI_USER || info->si_code == SI_QUEUE);
}

/* What others of this process write has commits made around the waits. */
static void *others(void *to)
{
    for (char c = 'a';; c = c == 'z' ? 'a' : c + 1) {
        if (write(*(int *)to, &c, 1) != 1)
            return to;
        usleep(300);
    }
}

/* A thread that is sent signals of its own (pthread_sigqueue(3)). */
static int replies[2];

static void *waits_itself(void *nothing)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 5);
    for (;;) {
        siginfo_t info;
        CHECK(sigwaitinfo(&set, &info) == SIGRTMIN + 5 && info.si_code == SI_QUEUE);
        int value = info.si_value.sival_int;
        CHECK(write(replies[1], &value, sizeof value) == sizeof value);
    }
    return nothing;
}

static void to_thread(pthread_t thread)
{
    for (int i = 1; i <= 3; i++)
        CHECK(pthread_sigqueue(thread, SIGRTMIN + 5, (union sigval){.sival_int = i}) == 0);
    for (int i = 1; i <= 3; i++) {
        int value = 0;
        CHECK(read(replies[0], &value, sizeof value) == sizeof value && value == i);
    }
}

static void waiter(int answers, int noise)
{
    sigset_t set;
    sigemptyset(&set);
    int waited[] = {SIGRTMIN + 3, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD};
    for (int i = 0; i < 5; i++)
        sigaddset(&set, waited[i]);
    CHECK(sigprocmask(SIG_BLOCK, &set, 0) == 0);
    CHECK(signal(SIGUSR2, SIG_IGN) != SIG_ERR);
    sigset_t own;
    sigemptyset(&own);
    sigaddset(&own, SIGRTMIN + 5);
    CHECK(sigprocmask(SIG_BLOCK, &own, 0) == 0 && pipe(replies) == 0);
    pthread_t thread, itself;
    CHECK(pthread_create(&thread, 0, others, &noise) == 0);
    CHECK(pthread_create(&itself, 0, waits_itself, 0) == 0);
    siginfo_t info;
    struct timespec none = {0, 0};
    CHECK(sigtimedwait(&set, &info, &none) == -1 && errno == EAGAIN);
    CHECK(write(answers, &(int){0}, sizeof(int)) == sizeof(int));
    for (int n = 1;; n++) {
        int signo = sigwaitinfo(&set, &info), answer = signo;
        if (signo == SIGRTMIN + 3) {
            CHECK(taken_of(signo, &info) && info.si_pid == getppid());
            answer = 1000 + info.si_value.sival_int;
        } else if (signo == SIGUSR1) {
            /* A child of its own, whose end is the next that comes. */
            CHECK(taken_of(signo, &info));
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0)
                _exit(7);
            CHECK(sigwaitinfo(&set, &info) == SIGCHLD && info.si_pid == child && info.si_status == 7);
            CHECK(waitpid(child, 0, 0) == child);
            to_thread(itself);
        } else {
            CHECK(signo == SIGUSR2 || signo == SIGTERM);
            CHECK(taken_of(signo, &info));
        }
        CHECK(write(answers, &answer, sizeof answer) == sizeof answer);
        if (signo == SIGTERM)
            _exit(n % 100);
    }
}

static int answer_of(int from)
{
    int answer = -1;
    CHECK(read(from, &answer, sizeof answer) == sizeof answer);
    return answer;
}

int main(void)
{
    int null = open("/dev/null", O_WRONLY);
    CHECK(null >= 0);
    for (int r = 1; r <= ROUNDS; r++) {
        int answers[2], status;
        CHECK(pipe(answers) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            waiter(answers[1], null);
        CHECK(answer_of(answers[0]) == 0);
        for (int i = 1; i <= 4; i++) {
            CHECK(sigqueue(child, SIGRTMIN + 3, (union sigval){.sival_int = i}) == 0);
            say("%d: queued %d, taken %d", r, i, answer_of(answers[0]));
        }
        CHECK(kill(child, SIGUSR1) == 0);
        say("%d: child %d", r, answer_of(answers[0]));
        CHECK(kill(child, SIGUSR2) == 0);
        say("%d: ignored %d", r, answer_of(answers[0]));
        for (int i = 5; i <= 9; i++)
            CHECK(sigqueue(child, SIGRTMIN + 3, (union sigval){.sival_int = i}) == 0);
        for (int i = 5; i <= 9; i++)
            say("%d: %d", r, answer_of(answers[0]));
        CHECK(kill(child, SIGTERM) == 0);
        say("%d: ends %d", r, answer_of(answers[0]));
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        say("%d: status %d", r, WEXITSTATUS(status));
        close(answers[0]), close(answers[1]);
    }
    say("ok");
    return 0;
}
