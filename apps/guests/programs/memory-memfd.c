/* Memory that has a descriptor but no name: two mappings of it, writes through the descriptor, other sizes, holes, a
 * mapping that goes before the next line is shown, seals, and mappings whose descriptor is closed. */
#define PAGE 4096
#define PAGES 64

static unsigned char model[PAGES * 2 * PAGE];

static void fill(unsigned char *at, unsigned char *copy, int len, int salt)
{
    for (int i = 0; i < len; i++)
        at[i] = copy[i] = mix(salt * 1000003 + i);
}

static void compare(int fd, int pages)
{
    static unsigned char got[PAGE];
    for (int p = 0; p < pages; p++) {
        CHECK(pread(fd, got, PAGE, (off_t)p * PAGE) == PAGE);
        CHECK(memcmp(got, model + p * PAGE, PAGE) == 0);
    }
}

int main(void)
{
    int fd = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0);
    unsigned char *one = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *two = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(one != MAP_FAILED && two != MAP_FAILED);
    int closed = memfd_create("closed", 0);
    CHECK(closed >= 0 && ftruncate(closed, 4 * PAGE) == 0);
    unsigned *counter = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
    CHECK(counter != MAP_FAILED && close(closed) == 0);
    int sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
    CHECK(sealed >= 0 && write(sealed, "for good", 8) == 8);
    CHECK(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        /* A hole, which a death must not leave filled. */
        for (int i = 0; i < PAGE; i++)
            CHECK(one[62 * PAGE + i] == 0);
        memset(one + 62 * PAGE, r, PAGE);
        memset(model + 62 * PAGE, r, PAGE);
        say("round %d: filled", r);
        CHECK(memcmp(two + 62 * PAGE, model + 62 * PAGE, PAGE) == 0);
        CHECK(madvise(one + 62 * PAGE, PAGE, MADV_REMOVE) == 0);
        memset(model + 62 * PAGE, 0, PAGE);
        /* Through both mappings, in turn into one page. */
        fill(one + r * PAGE, model + r * PAGE, 2 * PAGE, r);
        fill(two + r * PAGE + 100, model + r * PAGE + 100, 300, -r);
        counter[r] = r * r;
        say("round %d: stored", r);
        compare(fd, PAGES);
        /* Through the descriptor. */
        unsigned char bytes[5000];
        fill(bytes, model + 40 * PAGE + r * 10, sizeof bytes, r + 7);
        CHECK(pwrite(fd, bytes, sizeof bytes, 40 * PAGE + r * 10) == sizeof bytes);
        CHECK(memcmp(one + 40 * PAGE + r * 10, bytes, sizeof bytes) == 0);
        say("round %d: written", r);
        CHECK(memcmp(two, model, PAGES * PAGE) == 0);
        /* A mapping that is gone before anybody looks. */
        unsigned char *third = mmap(0, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 50 * PAGE);
        CHECK(third != MAP_FAILED);
        fill(third + (r % 8) * PAGE, model + (50 + r % 8) * PAGE, PAGE, r + 13);
        CHECK(munmap(third, 8 * PAGE) == 0);
        say("round %d: unmapped", r);
        compare(fd, PAGES);
        /* Larger, smaller, holes. */
        CHECK(ftruncate(fd, 2 * PAGES * PAGE) == 0);
        fill(bytes, model + PAGES * PAGE, sizeof bytes, r);
        CHECK(pwrite(fd, bytes, sizeof bytes, PAGES * PAGE) == sizeof bytes);
        say("round %d: larger", r);
        CHECK(pread(fd, bytes, sizeof bytes, PAGES * PAGE) == sizeof bytes);
        CHECK(memcmp(bytes, model + PAGES * PAGE, sizeof bytes) == 0);
        CHECK(ftruncate(fd, PAGES * PAGE - 100) == 0 && ftruncate(fd, PAGES * PAGE) == 0);
        memset(model + PAGES * PAGE - 100, 0, 100 + PAGES * PAGE);
        int hole = (r % 30 + 2) * PAGE;
        CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, hole + 10, 3 * PAGE) == 0);
        memset(model + hole + 10, 0, 3 * PAGE);
        say("round %d: smaller", r);
        compare(fd, PAGES);
        CHECK(memcmp(two, model, PAGES * PAGE) == 0);
        if (r % 3 == 0) {
            CHECK(madvise(one + (r % 20) * PAGE, 2 * PAGE, MADV_REMOVE) == 0);
            memset(model + (r % 20) * PAGE, 0, 2 * PAGE);
            CHECK(madvise(one, PAGES * PAGE, MADV_DONTNEED) == 0);
            void *moved = mremap(two, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, one);
            CHECK(moved == one);
            two = mmap(0, PAGES * PAGE, PROT_READ, MAP_SHARED, fd, 0);
            CHECK(two != MAP_FAILED && mprotect(two, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
            say("round %d: moved", r);
            CHECK(memcmp(one, model, PAGES * PAGE) == 0);
        }
        for (int i = 1; i <= r; i++)
            CHECK(counter[i] == (unsigned)(i * i));
        char name[64], link[64] = "";
        sprintf(name, "/proc/self/fd/%d", fd);
        CHECK(readlink(name, link, sizeof link - 1) > 0 && strncmp(link, "/memfd:probe", 12) == 0);
        int again = open(name, O_RDWR);
        CHECK(again >= 0 && pwrite(again, "again", 5, 20) == 5 && close(again) == 0);
        memcpy(model + 20, "again", 5);
        int seals = fcntl(sealed, F_GET_SEALS);
        CHECK(seals == (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK));
        CHECK(pread(sealed, name, 9, 0) == 8 && memcmp(name, "for good", 8) == 0);
        CHECK(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM);
        struct stat st;
        CHECK(fstat(fd, &st) == 0 && st.st_size == PAGES * PAGE);
    }
    say("ok");
    return 0;
}
