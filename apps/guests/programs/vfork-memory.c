/* A child of vfork and its parent have one memory: whatever the child has written before it ends or executes a program is
 * there for the parent, which waits for that. */
#define _GNU_SOURCE
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

static volatile int far_away[200000], *heap, *mapped;
static char stack[65536];

static void tell(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        _exit(99);
}

static void writes(int round)
{
    tell("child: begins\n");
    far_away[round * 1000] = round + 1;
    heap[round * 5000] = round + 2;
    poll(NULL, 0, 1);
    tell("child: has written\n");
    mapped[round * 1024] = round + 3;
    poll(NULL, 0, 1);
}

static int cloned(void *arg)
{
    writes((int)(intptr_t)arg);
    _exit(5);
}

int main(void)
{
    heap = malloc(ROUNDS * 20000 + 20000);
    mapped = mmap(NULL, ROUNDS * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(heap && mapped != MAP_FAILED);
    for (int round = 0; round < ROUNDS; round++) {
        int status = 0;
        pid_t pid;
        char *nothing[] = {"nothing", NULL}, *good[] = {"true", NULL};
        switch (round % 4) {
        case 0:
            pid = vfork();
            if (pid == 0) {
                writes(round);
                _exit(5);
            }
            break;
        case 1:
            pid = vfork();
            if (pid == 0) {
                writes(round);
                execv("/bin/true", good);
                _exit(6);
            }
            break;
        case 2:
            pid = clone(cloned, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)(intptr_t)round);
            break;
        default:
            CHECK(posix_spawn(&pid, "/does/not/exist", NULL, NULL, nothing, environ) == ENOENT);
            CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, good, environ) == 0);
        }
        CHECK(pid > 0);
        if (round % 4 != 3) {
            CHECK(far_away[round * 1000] == round + 1);
            CHECK(heap[round * 5000] == round + 2);
            CHECK(mapped[round * 1024] == round + 3);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        say("round %d: status %d", round, status);
    }
    say("ok");
    return 0;
}
