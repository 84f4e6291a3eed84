#include <sys/shm.h>
#include <sys/wait.h>
/* Parent and children write into one segment, attached before and after the fork, and after it was removed. */
#define CELLS (3 * 1024)
static volatile uint32_t *attach(int id, int flags)
{
    void *at = shmat(id, NULL, flags);
    CHECK(at != (void *)-1);
    return at;
}
static unsigned long attached(int id)
{
    struct shmid_ds ds;
    CHECK(shmctl(id, IPC_STAT, &ds) == 0);
    return ds.shm_nattch;
}
static void end_of(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
int main(void)
{
    int id = shmget(IPC_PRIVATE, CELLS * 4 + 100, IPC_CREAT | 0600);
    CHECK(id >= 0);
    volatile uint32_t *cells = attach(id, 0);
    struct shmid_ds ds;
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_segsz == CELLS * 4 + 100 && ds.shm_cpid == getpid());
    CHECK(ds.shm_nattch == 1 && (ds.shm_perm.mode & 0777) == 0600);
    for (uint32_t r = 1; r <= ROUNDS; r++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK(attached(id) == 2);
            volatile uint32_t *other = attach(id, 0);
            CHECK(other != cells && attached(id) == 3);
            for (uint32_t i = r % 7; i < CELLS - 1; i += 7)
                other[i] = other[i] * 3 + r;
            CHECK(shmdt((void *)other) == 0 && shmdt((void *)other) == -1 && errno == EINVAL);
            cells[0] += 1;
            exit(0);
        }
        cells[CELLS - 1] += r;
        end_of(child);
        CHECK(attached(id) == 1);
        say("round %u: %lx, %u, %u", r, (long)checksum((void *)cells, CELLS * 4), cells[0], cells[CELLS - 1]);
        compute(20);
    }
    /* A reader may not write; removed, it is there as long as somebody has it. */
    volatile uint32_t *reads = attach(id, SHM_RDONLY);
    CHECK(reads[0] == cells[0] && attached(id) == 2);
    CHECK(shmctl(id, IPC_RMID, NULL) == 0 && shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_perm.mode & 01000);
    CHECK(shmdt((void *)reads) == 0);
    for (uint32_t r = 1; r <= ROUNDS / 3; r++) {
        pid_t child = fork();
        if (child == 0) {
            cells[r] = r;
            exit(0);
        }
        end_of(child);
        CHECK(cells[r] == r);
        say("removed, round %u", r);
    }
    CHECK(shmdt((void *)cells) == 0);
    CHECK(shmctl(id, IPC_STAT, &ds) == -1 && (errno == EINVAL || errno == EIDRM));
    CHECK(shmat(id, NULL, 0) == (void *)-1 && (errno == EINVAL || errno == EIDRM));
    /* By a key. */
    key_t key = 0x64630000 | (getpid() & 0xffff);
    CHECK(shmget(key, 4096, 0600) == -1 && errno == ENOENT);
    id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(id >= 0 && shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600) == -1 && errno == EEXIST);
    CHECK(shmget(key, 100, 0600) == id && shmget(key, 4097, 0600) == -1 && errno == EINVAL);
    pid_t child = fork();
    if (child == 0) {
        uint32_t *at = (uint32_t *)attach(shmget(key, 4096, 0), 0);
        strcpy((char *)at, "by its key");
        exit(0);
    }
    end_of(child);
    say("%s", (char *)attach(id, 0));
    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
    say("ok");
    return 0;
}
