static char got[9000];

int main(void)
{
    int fd = open("changed", O_CREAT | O_RDWR | O_TRUNC, 0600);
    int tail = open("appended", O_CREAT | O_WRONLY | O_APPEND, 0644);
    CHECK(fd >= 0 && tail >= 0);
    char block[4096];
    for (int r = 1; r <= ROUNDS; r++) {
        memset(block, 'a' + r % 26, sizeof block);
        CHECK(pwrite(fd, block, sizeof block, 0) == sizeof block);
        say("round %d wrote", r);
        CHECK(pwrite(fd, "overwritten", 11, 100 + r) == 11);
        CHECK(ftruncate(fd, 2000 + r) == 0);
        say("round %d cut", r);
        CHECK(ftruncate(fd, 8000) == 0);
        CHECK(lseek(fd, 0, SEEK_END) == 8000);
        CHECK(write(fd, "end", 3) == 3);
        CHECK(pread(fd, got, sizeof got, 0) == 8003);
        say("round %d holds %016llx", r, (unsigned long long)checksum(got, 8003));
        CHECK(dprintf(tail, "round %d\n", r) > 0);
        struct stat st;
        CHECK(fstat(tail, &st) == 0);
        CHECK(lseek(tail, 0, SEEK_CUR) == st.st_size);
        say("round %d appended to %lld", r, (long long)st.st_size);
        if (r % 10 == 0) {
            CHECK(truncate("appended", 50) == 0);
            CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000) == 0 || errno == EOPNOTSUPP);
        }
    }
    say("ok");
    return 0;
}
