/* What a shell with job control does: a group of its own in the foreground of the terminal, the terminal lent to a child
 * and taken back. A program in the background would get no line to read. */

static void check_group(void)
{
    CHECK(getpgrp() == getpid() && getpgid(0) == getpid() && tcgetpgrp(0) == getpid());
    CHECK(kill(-getpid(), 0) == 0);
}

int main(void)
{
    char line[64];
    signal(SIGTTOU, SIG_IGN);
    struct termios mode;
    CHECK(tcgetattr(0, &mode) == 0);
    mode.c_lflag &= ~ECHO;
    CHECK(tcsetattr(0, TCSANOW, &mode) == 0);
    pid_t before = tcgetpgrp(0);
    CHECK(before == getpgrp() && before != getpid());
    CHECK(setpgid(0, 0) == 0 && tcsetpgrp(0, getpid()) == 0);
    for (int r = 1; r <= 24; r++) {
        check_group();
        say("ready %d", r);
        ssize_t len = read(0, line, sizeof line - 1);
        CHECK(len > 0);
        line[len - 1] = 0;
        check_group();
        say("line %d: %s", r, line);
    }
    /* Back to whoever had it: under a killed keeper that group is gone. */
    if (tcsetpgrp(0, before) == 0)
        CHECK(setpgid(0, before) == 0 && getpgrp() == before);
    say("ok");
    return 0;
}
