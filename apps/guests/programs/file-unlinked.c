int main(void)
{
    char line[64], got[4096];
    int fd = open("ghost", O_CREAT | O_RDWR | O_EXCL, 0600);
    CHECK(fd >= 0 && unlink("ghost") == 0);
    off_t size = 0;
    for (int r = 1; r <= ROUNDS * 2; r++) {
        int len = sprintf(line, "line %d\n", r);
        CHECK(write(fd, line, len) == len);
        size += len;
        struct stat st;
        CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == size);
        CHECK(pread(fd, got, sizeof got, 0) == size);
        say("round %d %016llx", r, (unsigned long long)checksum(got, size));
        CHECK(access("ghost", F_OK) == -1 && errno == ENOENT);
        int other = open("ghost", O_CREAT | O_RDWR | O_EXCL, 0600);
        CHECK(other >= 0 && write(other, "x", 1) == 1);
        say("round %d again", r);
        CHECK(unlink("ghost") == 0 && close(other) == 0);
    }
    say("ok");
    return 0;
}
