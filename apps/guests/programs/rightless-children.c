/* Children of a process that has given up its rights, and their children: what they do, say and store goes on and back
 * with all the others, and none of them has a right that it should not have. (An ordinary user has none to give up.) */
#include <grp.h>
#include <sys/wait.h>

static int *count;

static void give_up(void)
{
    if (geteuid() == 0)
        CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
    CHECK(geteuid() != 0 && setuid(0) < 0 && errno == EPERM);
}

static void await(pid_t pid, int expected)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == expected);
}

/* Each says something, has a child that says something, and hears of its end. */
__attribute__((noreturn)) static void generation(int round, int depth, const uid_t before)
{
    int own = depth * 1000 + round, ends[2];
    char byte = 0;
    CHECK(geteuid() == before && pipe(ends) == 0);
    say("round %d: generation %d at %d", round, depth, ++count[depth]);
    if (depth == 3)
        _exit(round);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(write(ends[1], "x", 1) == 1);
        generation(round, depth + 1, before);
    }
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
    await(pid, round);
    CHECK(own == depth * 1000 + round);
    say("round %d: generation %d has seen the next one end", round, depth);
    _exit(round);
}

int main(void)
{
    count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(count != MAP_FAILED);
    for (int round = 0; round < ROUNDS / 3; round++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            give_up();
            generation(round, 0, geteuid());
        }
        await(pid, round);
        say("round %d: all have ended, at %d %d %d %d", round, count[0], count[1], count[2], count[3]);
    }
    say("ok");
    return 0;
}
