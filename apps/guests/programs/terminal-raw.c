int main(void)
{
    struct termios cooked, raw, now;
    struct winsize size;
    CHECK(isatty(0) && tcgetattr(0, &cooked) == 0);
    CHECK(ioctl(0, TIOCGWINSZ, &size) == 0);
    say("size %d %d", size.ws_row, size.ws_col);
    raw = cooked;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    CHECK(tcsetattr(0, TCSAFLUSH, &raw) == 0);
    say("ready");
    for (char key = 0; key != 'q';) {
        CHECK(read(0, &key, 1) == 1);
        say("key %02x", key);
        CHECK(tcgetattr(0, &now) == 0 && !(now.c_lflag & (ICANON | ECHO | ISIG)));
    }
    CHECK(tcsetattr(0, TCSADRAIN, &cooked) == 0);
    say("cooked");
    char line[100];
    CHECK(fgets(line, sizeof line, stdin));
    CHECK(tcgetattr(0, &now) == 0 && now.c_lflag == cooked.c_lflag);
    say("line: %.*s", (int)strcspn(line, "\n"), line);
    CHECK(tcgetpgrp(0) == getpgrp());
    say("ok");
    return 0;
}
