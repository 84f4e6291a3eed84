#include <sys/wait.h>
/* Memory behind a descriptor without a name, of a parent and its children: inherited, mapped by each, written by both. */
#define CELLS 5000
int main(void)
{
    int fd = memfd_create("cells", MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, CELLS * 4) == 0);
    volatile uint32_t *cells = mmap(NULL, CELLS * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(cells != MAP_FAILED);
    for (uint32_t r = 1; r <= ROUNDS; r++) {
        pid_t child = fork();
        if (child == 0) {
            volatile uint32_t *own = mmap(NULL, CELLS * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            CHECK(own != MAP_FAILED && own != cells);
            for (uint32_t i = r % 3; i < CELLS - 2; i += 3)
                own[i] = own[i] * 5 + r;
            uint32_t word = r;
            CHECK(pwrite(fd, &word, 4, (CELLS - 1) * 4) == 4);
            exit(0);
        }
        cells[CELLS - 2] += r;
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(cells[CELLS - 1] == r);
        say("round %u: %lx", r, (long)checksum((void *)cells, CELLS * 4));
        compute(20);
    }
    /* A child that lives, and takes turns. */
    int to[2], from[2];
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    pid_t child = fork();
    char byte = 0;
    if (child == 0) {
        CHECK(close(to[1]) == 0);
        while (read(to[0], &byte, 1) == 1) {
            for (uint32_t i = 0; i < CELLS; i += 11)
                cells[i] += cells[i + 1] + byte;
            CHECK(write(from[1], &byte, 1) == 1);
        }
        exit(0);
    }
    for (byte = 1; byte <= ROUNDS; byte++) {
        CHECK(write(to[1], &byte, 1) == 1 && read(from[0], &byte, 1) == 1);
        cells[byte * 11 + 1] += byte;
        say("turn %d: %lx", byte, (long)checksum((void *)cells, CELLS * 4));
        compute(20);
    }
    CHECK(close(to[1]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    /* One that was sealed before. */
    int sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
    CHECK(sealed >= 0 && write(sealed, "for ever", 8) == 8);
    CHECK(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK) == 0);
    child = fork();
    if (child == 0) {
        char text[9] = "";
        CHECK(write(sealed, "x", 1) == -1 && errno == EPERM && ftruncate(sealed, 0) == -1);
        CHECK(fcntl(sealed, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_SHRINK));
        CHECK(pread(sealed, text, 8, 0) == 8);
        say("sealed %s", text);
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    say("ok");
    return 0;
}
