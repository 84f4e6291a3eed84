#define SIZE 65536
int main(void)
{
    int fd = open("mapped", O_CREAT | O_RDWR | O_TRUNC, 0644);
    CHECK(fd >= 0 && ftruncate(fd, SIZE) == 0);
    unsigned char *shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(shared != MAP_FAILED);
    memset(shared, 'm', SIZE);
    unsigned char *private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(private != MAP_FAILED && private[5] == 'm');
    memset(private, 0, SIZE);
    for (int r = 1; r <= ROUNDS; r++) {
        for (int i = 0; i < SIZE; i += 97)
            shared[i] = mix(r * i) & 127;
        say("round %d shared %016llx", r, (unsigned long long)checksum(shared, SIZE));
        for (int i = 0; i < SIZE; i += 1013)
            private[i] += r;
        unsigned char byte;
        CHECK(pread(fd, &byte, 1, 97) == 1 && byte == shared[97]);
        CHECK(msync(shared, SIZE, MS_SYNC) == 0);
        say("round %d private %016llx", r, (unsigned long long)checksum(private, SIZE));
    }
    CHECK(munmap(shared, SIZE) == 0 && munmap(private, SIZE) == 0);
    say("ok");
    return 0;
}
