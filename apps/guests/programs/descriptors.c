int main(void)
{
    int fd = open("file", O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0);
    for (int r = 1; r <= ROUNDS; r++) {
        int twin = dup(fd), far = fcntl(fd, F_DUPFD_CLOEXEC, 50 + r);
        CHECK(twin == fd + 1 && far == 50 + r);
        CHECK(lseek(twin, r * 10, SEEK_SET) == r * 10 && lseek(far, 0, SEEK_CUR) == r * 10);
        say("round %d shared", r);
        int other = open("file", O_RDWR | O_APPEND);
        CHECK(other == twin + 1 && lseek(other, 0, SEEK_CUR) == 0);
        CHECK(dprintf(twin, "round %d", r) > 0);
        CHECK(dup3(other, twin, O_CLOEXEC) == twin && (fcntl(twin, F_GETFD) & FD_CLOEXEC));
        CHECK((fcntl(twin, F_GETFL) & O_APPEND) && !(fcntl(fd, F_GETFL) & O_APPEND));
        CHECK(fcntl(fd, F_SETFL, O_APPEND) == 0 && (fcntl(far, F_GETFL) & O_APPEND));
        CHECK(fcntl(fd, F_SETFL, 0) == 0);
        say("round %d flags", r);
        CHECK(syscall(SYS_close_range, twin, ~0u, 0) == 0);
        CHECK(fcntl(other, F_GETFD) == -1 && errno == EBADF && fcntl(far, F_GETFD) == -1);
        CHECK(fcntl(fd, F_GETFD) >= 0 && lseek(fd, 0, SEEK_CUR) > r * 10);
        CHECK(write(999, "x", 1) == -1 && errno == EBADF);
        say("round %d closed", r);
    }
    say("ok");
    return 0;
}
