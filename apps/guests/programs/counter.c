int main(void)
{
    int fd = open("counter.txt", O_CREAT | O_EXCL | O_WRONLY, 0644);
    CHECK(fd >= 0);
    for (int n = 1; n <= 300; n++) {
        char line[32];
        int len = sprintf(line, "%d\n", n);
        CHECK(write(fd, line, len) == len);
        if (n % 10 == 0)
            CHECK(fsync(fd) == 0);
        say("%d", n);
    }
    say("ok");
    return 0;
}
