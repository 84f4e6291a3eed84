int main(void)
{
    char first[PATH_MAX], cwd[PATH_MAX], name[16];
    pid_t pid = getpid(), tid = gettid(), group = getpgrp(), session = getsid(0);
    CHECK(getcwd(first, sizeof first) && mkdir("inner", 0755) == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        CHECK(chdir("inner") == 0);
        mode_t mask = r * 7 % 64;
        umask(mask);
        struct rlimit limit = {.rlim_cur = 100 + r, .rlim_max = 4096}, got;
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        sprintf(name, "round-%d", r);
        CHECK(prctl(PR_SET_NAME, name) == 0);
        say("round %d set", r);
        CHECK(getcwd(cwd, sizeof cwd) && strlen(cwd) == strlen(first) + 6 && strstr(cwd, "/inner"));
        CHECK(umask(022) == mask);
        CHECK(getrlimit(RLIMIT_NOFILE, &got) == 0 && got.rlim_cur == limit.rlim_cur);
        char have[16];
        CHECK(prctl(PR_GET_NAME, have) == 0 && strcmp(have, name) == 0);
        say("round %d kept", r);
        CHECK(getpid() == pid && gettid() == tid && getpgrp() == group && getsid(0) == session);
        CHECK(chdir("..") == 0 && getcwd(cwd, sizeof cwd) && strcmp(cwd, first) == 0);
    }
    say("ok");
    return 0;
}
