int main(int argc, char **argv)
{
    char exe[PATH_MAX] = {0};
    CHECK(argc == 1 && readlink("/proc/self/exe", exe, sizeof exe - 1) > 0);
    char *name = strrchr(exe, '/') + 1;
    CHECK(strncmp(name, "exe-link-", 9) == 0 && strcmp(exe, argv[0]) == 0);
    CHECK(strcmp((char *)getauxval(AT_EXECFN), argv[0]) == 0);
    CHECK(getauxval(AT_PAGESZ) == 4096 && getauxval(AT_UID) == getuid() && getauxval(AT_RANDOM));
    CHECK(strcmp(program_invocation_short_name, name) == 0 && getenv("TERM") && !getenv("DCRUN"));
    unsigned char magic[4];
    for (int r = 1; r <= ROUNDS; r++) {
        char again[PATH_MAX] = {0};
        CHECK(readlink("/proc/self/exe", again, sizeof again - 1) > 0 && strcmp(exe, again) == 0);
        int fd = open("/proc/self/exe", O_RDONLY);
        CHECK(fd >= 0 && read(fd, magic, 4) == 4 && memcmp(magic, "\177ELF", 4) == 0);
        struct stat self, file;
        CHECK(fstat(fd, &self) == 0 && stat(argv[0], &file) == 0 && self.st_ino == file.st_ino);
        CHECK(close(fd) == 0);
        say("round %d", r);
    }
    say("ok");
    return 0;
}
