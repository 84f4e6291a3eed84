static int count(const char *path)
{
    int entries = 0;
    DIR *dir = opendir(path);
    CHECK(dir);
    for (struct dirent *e; (e = readdir(dir));)
        entries++;
    closedir(dir);
    return entries - 2;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0640);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(close(fd) == 0);
}

int main(void)
{
    char name[64], text[64];
    struct stat st;
    for (int r = 1; r <= ROUNDS; r++) {
        sprintf(name, "dir-%d", r);
        CHECK(mkdir(name, 0755) == 0 && mkdir(name, 0755) == -1 && errno == EEXIST);
        say("round %d made", r);
        CHECK(chdir(name) == 0);
        sprintf(text, "of round %d", r);
        put("a", text);
        CHECK(rename("a", "b") == 0 && access("a", F_OK) == -1);
        say("round %d renamed", r);
        put("c", "to be replaced");
        CHECK(rename("b", "c") == 0 && stat("c", &st) == 0 && st.st_size == (off_t)strlen(text));
        CHECK(link("c", "d") == 0 && stat("d", &st) == 0 && st.st_nlink == 2);
        CHECK(symlink("d", "s") == 0 && chmod("d", 0600) == 0);
        say("round %d has %d names", r, count("."));
        CHECK(unlink("c") == 0 && stat("d", &st) == 0 && st.st_nlink == 1);
        CHECK(chdir("..") == 0);
        if (r % 3 == 0) {
            sprintf(text, "dir-%d/d", r);
            CHECK(unlink(text) == 0);
            sprintf(text, "dir-%d/s", r);
            CHECK(unlink(text) == 0);
            CHECK(rmdir(name) == 0);
            say("round %d removed", r);
        } else if (r % 3 == 1) {
            sprintf(text, "moved-%d", r);
            CHECK(rename(name, text) == 0);
            say("round %d moved", r);
        }
    }
    say("left %d", count("."));
    say("ok");
    return 0;
}
