#include <semaphore.h>
#include <sys/wait.h>
/* Memory with a name in /dev/shm and a semaphore with a name: of two processes, unlinked while they are used. */
struct memory {
    pthread_mutex_t mutex, robust;
    pthread_cond_t turn;
    int whose, sum, cells[3000];
};
static char name[64];
static struct memory *map(int fd)
{
    struct memory *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m != MAP_FAILED);
    return m;
}
static void wait_for(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
int main(void)
{
    sprintf(name, "/dcrun-probe-%d", getpid());
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && ftruncate(fd, sizeof(struct memory)) == 0);
    struct memory *m = map(fd);
    pthread_mutexattr_t shared, robust;
    pthread_condattr_t between;
    CHECK(pthread_mutexattr_init(&shared) == 0 && pthread_mutexattr_setpshared(&shared, 1) == 0);
    robust = shared;
    CHECK(pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST) == 0);
    CHECK(pthread_condattr_init(&between) == 0 && pthread_condattr_setpshared(&between, 1) == 0);
    CHECK(pthread_mutex_init(&m->mutex, &shared) == 0 && pthread_mutex_init(&m->robust, &robust) == 0);
    CHECK(pthread_cond_init(&m->turn, &between) == 0);
    sem_t *done = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
    CHECK(done != SEM_FAILED);
    pid_t child = fork();
    if (child == 0) {
        /* By its name, at another address. */
        int own = shm_open(name, O_RDWR, 0);
        CHECK(own >= 0);
        struct memory *other = map(own);
        CHECK(other != m && close(own) == 0);
        for (int r = 1; r <= ROUNDS; r++) {
            CHECK(pthread_mutex_lock(&other->mutex) == 0);
            while (other->whose != 1)
                CHECK(pthread_cond_wait(&other->turn, &other->mutex) == 0);
            for (int i = 0; i < 3000; i += 10 + r)
                other->cells[i] += r * i;
            other->sum = other->sum * 3 + r;
            other->whose = 0;
            CHECK(pthread_cond_signal(&other->turn) == 0 && pthread_mutex_unlock(&other->mutex) == 0);
            CHECK(sem_post(done) == 0);
        }
        exit(0);
    }
    for (int r = 1; r <= ROUNDS; r++) {
        CHECK(pthread_mutex_lock(&m->mutex) == 0);
        while (m->whose != 0)
            CHECK(pthread_cond_wait(&m->turn, &m->mutex) == 0);
        m->whose = 1;
        m->cells[r * 7] ^= r;
        CHECK(pthread_cond_signal(&m->turn) == 0 && pthread_mutex_unlock(&m->mutex) == 0);
        while (sem_wait(done) == -1)
            CHECK(errno == EINTR);
        CHECK(pthread_mutex_lock(&m->mutex) == 0);
        say("round %d: %d, %lx", r, m->sum, (long)checksum(m->cells, sizeof m->cells));
        CHECK(pthread_mutex_unlock(&m->mutex) == 0);
        compute(20);
        if (r == ROUNDS / 2)
            CHECK(shm_unlink(name) == 0 && sem_unlink(name) == 0 && shm_open(name, O_RDWR, 0) == -1);
    }
    wait_for(child);
    /* Owners that end, or are killed, with a robust mutex in their hands. */
    for (int r = 1; r <= 6; r++) {
        child = fork();
        if (child == 0) {
            CHECK(pthread_mutex_lock(&m->robust) == 0);
            m->sum = r;
            sem_post(done);
            while (m->whose != r)
                usleep(1000);
            if (r % 2)
                kill(getpid(), SIGKILL);
            _exit(0);
        }
        while (sem_wait(done) == -1)
            CHECK(errno == EINTR);
        CHECK(pthread_mutex_trylock(&m->robust) == EBUSY);
        m->whose = r;
        CHECK(pthread_mutex_lock(&m->robust) == EOWNERDEAD);
        CHECK(pthread_mutex_consistent(&m->robust) == 0 && pthread_mutex_unlock(&m->robust) == 0);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        say("owner %d: %d", r, m->sum);
    }
    say("ok");
    return 0;
}
