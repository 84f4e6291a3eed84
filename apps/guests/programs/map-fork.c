/*
 * A child keeps what its parent had when it was made, whatever the parent
 * writes and commits afterwards. Children do not survive, but what they see
 * must be right as long as they live.
 */
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 512, LEN = PAGES * PAGE };

static unsigned char *area;

static void fill(uint64_t seed)
{
    for (size_t page = 0; page < LEN; page += PAGE)
        for (size_t word = 0; word < PAGE; word += 256)
            memcpy(area + page + word, &(uint64_t){mix(seed + page + word)}, 8);
}

static void show(const char *what, int round)
{
    compute((int)(now_us() % 3));
    say("%d %s %016llx", round, what, (unsigned long long)checksum(area, LEN));
}

/* The child says once what it sees, when the parent has written long enough. */
static void be_child(int go, int verdict, uint64_t sum)
{
    char byte;
    while (read(go, &byte, 1) < 0 && errno == EINTR) {
    }
    byte = checksum(area, LEN) == sum;
    if (byte) {
        madvise(area, LEN, MADV_DONTNEED);
        for (size_t i = 0; i < LEN; i += 64)
            byte &= area[i] == 0;
    }
    _exit(write(verdict, &byte, 1) == 1 ? 0 : 1);
}

int main(void)
{
    area = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    for (int round = 0; round < 6; round++) {
        fill(round);
        show("filled", round);
        show("and read", round);
        area[100 * PAGE] = (unsigned char)round;
        uint64_t sum = checksum(area, LEN);
        int go[2], verdict[2];
        CHECK(pipe(go) == 0 && pipe(verdict) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            be_child(go[0], verdict[1], sum);
        close(verdict[1]);
        for (int turn = 0; turn < 4; turn++) {
            fill(1000 * round + turn);
            show("overwritten", round);
        }
        CHECK(write(go[1], "g", 1) == 1);
        char byte = 0;
        /* Nothing, if the child died together with all others. */
        CHECK(read(verdict[0], &byte, 1) == 0 || byte == 1);
        /* The parent may be another process than the one that had the child. */
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
        }
        close(verdict[0]);
        close(go[0]);
        close(go[1]);
        show("seen right by the child", round);
    }
    say("ok");
    return 0;
}
