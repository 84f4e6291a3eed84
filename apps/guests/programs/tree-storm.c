/* Several processes that do everything at once, each by its own dice: shared memory under robust mutexes, semaphores, files
 * under locks, eventfds, signals in both ways, children, threads, questions to the parent. What comes of it is counted. */
#include <sys/file.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define WORKERS 4
#define STEPS 30
#define KINDS 9

struct all {
    pthread_mutex_t mutex;
    int counts[KINDS];
    int by_child, by_thread, told[WORKERS], heard[WORKERS];
};

static struct all *all;
static int event, semaphores, worker;
static const char *path = "storm-lines";

static unsigned dice(unsigned *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 16;
}

static void told(int number)
{
    (void)number;
    __sync_fetch_and_add(&all->heard[worker], 1);
}

static void locked(int *count, int more)
{
    int r = pthread_mutex_lock(&all->mutex);
    CHECK(r == 0);
    int was = *count;
    sched_yield();
    *count = was + more;
    CHECK(pthread_mutex_unlock(&all->mutex) == 0);
}

static void *thread(void *more)
{
    locked(&all->by_thread, *(int *)more);
    return more;
}

static void append(void)
{
    int file = open(path, O_RDWR | O_CREAT, 0644);
    CHECK(file >= 0);
    while (flock(file, LOCK_EX) != 0)
        CHECK(errno == EINTR);
    off_t end = lseek(file, 0, SEEK_END);
    char line[17];
    int last = 0;
    if (end > 0) {
        CHECK(pread(file, line, 16, end - 16) == 16);
        last = atoi(line);
    }
    snprintf(line, sizeof line, "%15d\n", last + 1);
    CHECK(write(file, line, 16) == 16);
    close(file);
}

static void step(unsigned *seed, int parent)
{
    int kind = dice(seed) % KINDS, more = dice(seed) % 100, status;
    switch (kind) {
    case 0: {
        struct sembuf take = {0, -1, SEM_UNDO}, give = {0, 1, SEM_UNDO};
        while (semop(semaphores, &take, 1) != 0)
            CHECK(errno == EINTR);
        all->counts[0] += more;
        CHECK(semop(semaphores, &give, 1) == 0);
        break;
    }
    case 1:
        append();
        break;
    case 2: {
        uint64_t one = 1, got;
        CHECK(write(event, &one, 8) == 8);
        while (read(event, &got, 8) != 8)
            CHECK(errno == EINTR);
        CHECK(got == 1);
        locked(&all->counts[2], more);
        break;
    }
    case 3: {
        locked(&all->counts[3], more);
        CHECK(raise(SIGUSR1) == 0);
        __sync_fetch_and_add(&all->told[worker], 1);
        break;
    }
    case 4: {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            locked(&all->by_child, more);
            _exit(more);
        }
        while (waitpid(child, &status, 0) != child)
            CHECK(errno == EINTR);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == more);
        break;
    }
    case 5: {
        pthread_t other;
        CHECK(pthread_create(&other, 0, thread, &more) == 0);
        CHECK(pthread_join(other, 0) == 0);
        break;
    }
    case 6: {
        sigset_t set;
        siginfo_t info;
        sigemptyset(&set);
        sigaddset(&set, SIGRTMIN + 2);
        CHECK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = more}) == 0);
        int got;
        while ((got = sigwaitinfo(&set, &info)) < 0)
            CHECK(errno == EINTR);
        CHECK(got == SIGRTMIN + 2 && info.si_value.sival_int == more);
        locked(&all->counts[6], more);
        break;
    }
    case 7: {
        int answer = 0;
        while (write(parent, &more, sizeof more) != sizeof more)
            CHECK(errno == EINTR);
        while (read(parent, &answer, sizeof answer) != sizeof answer)
            CHECK(errno == EINTR);
        CHECK(answer == 2 * more + 1);
        locked(&all->counts[7], more);
        break;
    }
    default:
        usleep(more * 20);
        locked(&all->counts[8], more);
    }
}

static void work(unsigned seed, int parent)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    CHECK(sigprocmask(SIG_BLOCK, &set, 0) == 0);
    struct sigaction action = {.sa_handler = told};
    CHECK(sigaction(SIGUSR1, &action, 0) == 0);
    for (int i = 0; i < STEPS; i++)
        step(&seed, parent);
    CHECK(all->told[worker] == all->heard[worker]);
    _exit(40 + worker);
}

int main(void)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    for (int r = 1; r <= ROUNDS / 3; r++) {
        all = mmap(0, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(all != MAP_FAILED && pthread_mutex_init(&all->mutex, &kind) == 0);
        event = eventfd(0, EFD_SEMAPHORE);
        semaphores = semget(IPC_PRIVATE, 1, 0600);
        CHECK(event >= 0 && semaphores >= 0 && semctl(semaphores, 0, SETVAL, 1) == 0);
        unlink(path);
        pid_t workers[WORKERS] = {0};
        struct pollfd ends[WORKERS];
        for (worker = 0; worker < WORKERS; worker++) {
            int pair[2];
            CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
            workers[worker] = fork();
            CHECK(workers[worker] >= 0);
            if (workers[worker] == 0) {
                close(pair[0]);
                work(r * 100 + worker, pair[1]);
            }
            close(pair[1]);
            ends[worker] = (struct pollfd){.fd = pair[0], .events = POLLIN};
        }
        for (int left = WORKERS; left > 0;) {
            CHECK(poll(ends, WORKERS, -1) > 0);
            for (int i = 0; i < WORKERS; i++) {
                int question, answer;
                if (ends[i].revents == 0)
                    continue;
                ssize_t n = read(ends[i].fd, &question, sizeof question);
                if (n == sizeof question) {
                    answer = 2 * question + 1;
                    CHECK(write(ends[i].fd, &answer, sizeof answer) == sizeof answer);
                } else {
                    CHECK(n == 0);
                    close(ends[i].fd);
                    ends[i].fd = -1;
                    left--;
                }
            }
        }
        for (int i = 0; i < WORKERS; i++) {
            int status;
            CHECK(waitpid(workers[i], &status, 0) == workers[i]);
            if (status != (40 + i) << 8)
                say("worker %d has ended with status %x", i, status);
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 40 + i);
        }
        struct stat about = {0};
        if (stat(path, &about) != 0)
            CHECK(errno == ENOENT);
        say("%d: %d %d %d %d %d %d, children %d, threads %d, lines %d", r, all->counts[0], all->counts[2], all->counts[3],
            all->counts[6], all->counts[7], all->counts[8], all->by_child, all->by_thread, (int)about.st_size / 16);
        semctl(semaphores, 0, IPC_RMID);
        close(event);
        munmap(all, sizeof *all);
    }
    say("ok");
    return 0;
}
