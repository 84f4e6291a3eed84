/*
 * Large areas, as a recovery may map them from the image instead of copying
 * them, and everything that must not tell the difference. Each line is a
 * commit, so that a kill after it recovers the areas as they are there.
 */

enum { PAGE = 4096, PAGES = 512, LEN = PAGES * PAGE };

static unsigned char *area;

static void fill(unsigned char *at, size_t len, uint64_t seed)
{
    for (size_t page = 0; page < len; page += PAGE)
        for (size_t word = 0; word < PAGE; word += 64)
            memcpy(at + page + word, &(uint64_t){mix(seed + page + word)}, 8);
}

/* The clock is chance: the line below it must be committed before it is shown. */
static void show(const char *what, int round)
{
    compute((int)(now_us() % 3));
    say("%d %s %016llx", round, what, (unsigned long long)checksum(area, LEN));
}

static int is_zero(const unsigned char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i])
            return 0;
    return 1;
}

static void drop(int round)
{
    size_t from = (100 + round) * PAGE, len = 150 * PAGE;
    CHECK(madvise(area + from, len, MADV_DONTNEED) == 0);
    CHECK(is_zero(area + from, len));
    show("dropped", round);
    CHECK(is_zero(area + from, len));
    area[from + 5000] = 7;
    show("written after it", round);
    CHECK(madvise(area, LEN, MADV_DONTNEED) == 0);
    CHECK(is_zero(area, LEN));
    fill(area + 3 * PAGE, 40 * PAGE, round);
    show("all dropped, some written", round);
}

static void move(int round)
{
    area = mremap(area, LEN, LEN * 2, MREMAP_MAYMOVE);
    CHECK(area != MAP_FAILED && is_zero(area + LEN, LEN));
    show("grown", round);
    fill(area + LEN, LEN, round + 1);
    CHECK(mremap(area, LEN * 2, LEN, 0) == area);
    show("cut", round);
    unsigned char *other = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(other != MAP_FAILED);
    area = mremap(area, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, other);
    CHECK(area == other);
    show("moved", round);
    CHECK(mremap(area + 100 * PAGE, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                 area + 300 * PAGE) == area + 300 * PAGE);
    CHECK(mmap(area + 100 * PAGE, 50 * PAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area + 100 * PAGE);
    CHECK(is_zero(area + 100 * PAGE, 50 * PAGE));
    show("moved within", round);
}

static void protect(int round)
{
    CHECK(mprotect(area, LEN, PROT_READ) == 0);
    show("read-only", round);
    CHECK(mprotect(area + 10 * PAGE, 90 * PAGE, PROT_NONE) == 0);
    say("%d none", round);
    CHECK(mprotect(area + 10 * PAGE, 90 * PAGE, PROT_READ | PROT_WRITE) == 0);
    area[50 * PAGE + 3]++;
    show("writable in part", round);
    CHECK(mprotect(area, LEN, PROT_READ | PROT_EXEC) == 0);
    show("executable", round);
    CHECK(mprotect(area, LEN, PROT_READ | PROT_WRITE) == 0);
    static const unsigned char answer[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    memcpy(area + 200 * PAGE, answer, sizeof answer);
    CHECK(mprotect(area + 200 * PAGE, PAGE, PROT_READ | PROT_EXEC) == 0);
    CHECK(((int (*)(void))(area + 200 * PAGE))() == 42);
    show("executed", round);
    CHECK(((int (*)(void))(area + 200 * PAGE))() == 42);
    CHECK(mprotect(area, LEN, PROT_READ | PROT_WRITE) == 0);
}

static void punch(int round)
{
    size_t from = (60 + round) * PAGE, len = 30 * PAGE;
    CHECK(munmap(area + from, len) == 0);
    CHECK(mmap(area + from, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
               -1, 0) == area + from);
    CHECK(is_zero(area + from, len));
    show("mapped anew", round);
}

/* What the kernel reads and writes for a call, and sparse writes among what is only read. */
static void calls(int round)
{
    int zeros = open("/dev/zero", O_RDONLY), sink = open("/dev/null", O_WRONLY);
    CHECK(zeros >= 0 && sink >= 0);
    for (int page = 0; page < PAGES; page += 37) {
        CHECK(write(sink, area + page * PAGE + 64, 512) == 512);
        CHECK(read(zeros, area + page * PAGE + 2048, 512) == 512);
        area[page * PAGE + PAGE - 1]++;
    }
    close(zeros);
    close(sink);
    show("read and written by calls", round);
}

static void grow_break(int round)
{
    unsigned char *old = sbrk(0);
    CHECK(sbrk(LEN) == old);
    fill(old, LEN, round);
    uint64_t sum = checksum(old, LEN);
    show("break up", round);
    CHECK(checksum(old, LEN) == sum);
    CHECK(sbrk(-LEN / 2) != (void *)-1);
    show("break half down", round);
    CHECK(sbrk(LEN / 2) != (void *)-1);
    CHECK(is_zero(old + LEN / 2, LEN / 2));
    show("break up again", round);
    CHECK(sbrk(-LEN) != (void *)-1);
}

int main(void)
{
    for (int round = 0; round < 3; round++) {
        area = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(area != MAP_FAILED);
        void (*steps[])(int) = {drop, move, protect, punch, calls, grow_break};
        for (int step = 0; step < 6; step++) {
            fill(area, LEN, round * 100 + step);
            show("filled", round);
            show("and read", round);
            steps[step](round);
            show("in the end", round);
        }
        CHECK(munmap(area, LEN) == 0);
    }
    say("ok");
    return 0;
}
