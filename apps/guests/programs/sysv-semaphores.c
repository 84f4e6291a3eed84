#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/wait.h>
/* Two processes take turns by semaphores; ends give back what SEM_UNDO took; waits that time out, and whose set goes. */
static int set;
static int value(int n)
{
    int v = semctl(set, n, GETVAL);
    CHECK(v >= 0);
    return v;
}
static void op(int n, int amount, int flags)
{
    struct sembuf one = {n, amount, flags};
    int r;
    while ((r = semop(set, &one, 1)) == -1 && errno == EINTR)
        ;
    CHECK(r == 0);
}
static void ends(pid_t child, int with)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == with);
}
int main(void)
{
    CHECK((set = semget(IPC_PRIVATE, 5, IPC_CREAT | 0600)) >= 0);
    unsigned short all[5] = {0, 0, 10, 1, 0};
    CHECK(semctl(set, 0, SETALL, all) == 0);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t child = fork();
    if (child == 0) {
        for (int r = 1; r <= ROUNDS; r++) {
            op(0, -1, 0);
            char line[64];
            int n = sprintf(line, "child %d %d\n", r, value(2));
            CHECK(write(pipes[1], line, n) == n);
            op(2, r % 2 ? 2 : -1, 0);
            op(1, 1, 0);
        }
        exit(3);
    }
    for (int r = 1; r <= ROUNDS; r++) {
        op(0, 1, 0);
        op(1, -1, 0);
        char line[64] = "";
        CHECK(read(pipes[0], line, sizeof line - 1) > 0);
        line[strcspn(line, "\n")] = 0;
        say("round %d: %s, now %d", r, line, value(2));
        compute(20);
    }
    ends(child, 3);
    /* All of it or nothing, and zero. */
    struct sembuf both[2] = {{2, -2, IPC_NOWAIT}, {4, -1, IPC_NOWAIT}};
    int before = value(2);
    CHECK(semop(set, both, 2) == -1 && errno == EAGAIN && value(2) == before);
    struct sembuf zero[2] = {{4, 0, IPC_NOWAIT}, {4, 2, 0}};
    CHECK(semop(set, zero, 2) == 0 && value(4) == 2 && semop(set, zero, 2) == -1 && errno == EAGAIN);
    CHECK(semctl(set, 4, GETPID) == getpid());
    /* SEM_UNDO, by an end and by a kill. */
    for (int r = 0; r < 6; r++) {
        child = fork();
        if (child == 0) {
            op(3, -1, SEM_UNDO);
            op(4, 5, SEM_UNDO);
            CHECK(value(3) == 0 && value(4) == 7);
            op(0, 1, 0);
            while (semctl(set, 3, GETNCNT) != 1)
                usleep(1000);
            if (r % 2)
                kill(getpid(), SIGKILL);
            exit(4);
        }
        /* It waits for what the child gives back. */
        op(0, -1, 0);
        op(3, -1, 0);
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        say("undone %d: %d %d, %s", r, value(3), value(4), WIFSIGNALED(status) ? "killed" : "ended");
        op(3, 1, 0);
    }
    /* Times. */
    struct timespec time = {0, 60000000};
    struct sembuf more = {0, -1, 0};
    int64_t begin = now_us();
    CHECK(semtimedop(set, &more, 1, &time) == -1 && errno == EAGAIN && now_us() - begin >= 59000);
    say("timed out");
    /* Who waits, and a set that goes. */
    child = fork();
    if (child == 0) {
        CHECK(semop(set, &more, 1) == -1 && errno == EIDRM);
        exit(5);
    }
    while (semctl(set, 0, GETNCNT) != 1)
        usleep(2000);
    say("one waits");
    CHECK(semctl(set, 0, IPC_RMID) == 0);
    ends(child, 5);
    CHECK(semop(set, &more, 1) == -1 && errno == EINVAL);
    say("ok");
    return 0;
}
