/* Sessions and terminals that the program makes itself: a child that begins a session on a pty, groups in its
 * foreground, its settings and size, what is typed and printed, and its hang-up. */
#include <sys/wait.h>

static volatile sig_atomic_t came;

static void note(int number)
{
    came = number;
}

static pid_t spawned(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

static void read_line(int fd, char *line, size_t room)
{
    size_t len = 0;
    while (len < room - 1) {
        ssize_t n = read(fd, line + len, 1);
        if (n < 0 && errno == EINTR)
            continue;
        CHECK(n == 1);
        if (line[len] == '\r')
            continue;
        if (line[len++] == '\n')
            break;
    }
    line[len - 1] = 0;
}

static void print_line(int fd, const char *line)
{
    char text[80];
    int len = snprintf(text, sizeof text, "%s\n", line);
    CHECK(write(fd, text, len) == len);
}

static void expect_line(int fd, const char *wanted)
{
    char line[80];
    read_line(fd, line, sizeof line);
    if (strcmp(line, wanted))
        say("line '%s' instead of '%s'", line, wanted);
    CHECK(!strcmp(line, wanted));
}

static int open_master(char *name, size_t room)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    CHECK(ptsname_r(master, name, room) == 0);
    return master;
}

/* The leader of a session on the terminal; it answers to lines. */
static void lead(const char *name)
{
    char line[80], answer[100];
    struct termios mode;
    struct winsize size;
    sigset_t mask, before;
    sigemptyset(&mask), sigaddset(&mask, SIGUSR1), sigaddset(&mask, SIGWINCH);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGUSR1, note), signal(SIGWINCH, note);
    CHECK(sigprocmask(SIG_BLOCK, &mask, &before) == 0);
    CHECK(setsid() == getpid());
    CHECK(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO);
    int tty = open(name, O_RDWR | O_NOCTTY);
    CHECK(tty >= 0);
    CHECK(tcgetpgrp(tty) == -1 && errno == ENOTTY);
    CHECK(ioctl(tty, TIOCSCTTY, 0) == 0);
    CHECK(tcgetpgrp(tty) == getpid() && tcgetsid(tty) == getpid());
    int again = open("/dev/tty", O_RDWR);
    CHECK(again >= 0 && isatty(again));
    close(again);
    CHECK(tcgetattr(tty, &mode) == 0);
    mode.c_lflag &= ~ECHO;
    mode.c_oflag &= ~OPOST;
    CHECK(tcsetattr(tty, TCSANOW, &mode) == 0);
    print_line(tty, "ready");
    for (;;) {
        read_line(tty, line, sizeof line);
        if (!strcmp(line, "size")) {
            while (came != SIGWINCH)
                sigsuspend(&before);
            came = 0;
            CHECK(ioctl(tty, TIOCGWINSZ, &size) == 0);
            snprintf(answer, sizeof answer, "size %d %d", size.ws_row, size.ws_col);
        } else if (!strcmp(line, "mode")) {
            CHECK(tcgetattr(tty, &mode) == 0);
            snprintf(answer, sizeof answer, "mode %d %d", !!(mode.c_lflag & ECHO), !!(mode.c_oflag & OPOST));
        } else if (!strcmp(line, "job")) {
            /* In the foreground: it alone may read. */
            int status;
            pid_t job = spawned();
            if (job == 0) {
                CHECK(setpgid(0, 0) == 0 || errno == EACCES);
                CHECK(tcsetpgrp(tty, getpid()) == 0);
                signal(SIGTTOU, SIG_DFL);
                print_line(tty, "job reads");
                read_line(tty, line, sizeof line);
                CHECK(tcgetpgrp(tty) == getpid() && getsid(0) == getppid());
                snprintf(answer, sizeof answer, "job got %s", line);
                print_line(tty, answer);
                _exit(21);
            }
            setpgid(job, job);
            CHECK(waitpid(job, &status, 0) == job && WIFEXITED(status) && WEXITSTATUS(status) == 21);
            CHECK(tcsetpgrp(tty, getpgrp()) == 0 && tcgetpgrp(tty) == getpgrp());
            snprintf(answer, sizeof answer, "job done");
        } else if (!strcmp(line, "interrupt")) {
            /* ^C goes to the foreground. */
            int status;
            pid_t job = spawned();
            if (job == 0) {
                setpgid(0, 0);
                CHECK(tcsetpgrp(tty, getpid()) == 0);
                print_line(tty, "job waits");
                for (;;)
                    pause();
            }
            setpgid(job, job);
            CHECK(waitpid(job, &status, 0) == job && WIFSIGNALED(status));
            CHECK(tcsetpgrp(tty, getpgrp()) == 0);
            snprintf(answer, sizeof answer, "job ended by %d", WTERMSIG(status));
        } else if (!strcmp(line, "stop")) {
            /* ^Z stops the foreground; in the background it may not read, nor set the terminal. */
            int status;
            pid_t job = spawned();
            if (job == 0) {
                setpgid(0, 0);
                CHECK(tcsetpgrp(tty, getpid()) == 0);
                signal(SIGTTOU, SIG_DFL);
                print_line(tty, "job runs");
                pause();
                _exit(1);
            }
            setpgid(job, job);
            CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status));
            int first = WSTOPSIG(status);
            CHECK(kill(-job, SIGKILL) == 0 && waitpid(job, &status, 0) == job);
            CHECK(tcsetpgrp(tty, getpgrp()) == 0);
            job = spawned();
            if (job == 0) {
                char byte;
                setpgid(0, 0);
                signal(SIGTTOU, SIG_DFL);
                CHECK(tcgetattr(tty, &mode) == 0);
                CHECK(tcsetattr(tty, TCSANOW, &mode) == 0);
                if (read(tty, &byte, 1) < 0)
                    _exit(2);
                _exit(1);
            }
            setpgid(job, job);
            CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status));
            int second = WSTOPSIG(status);
            signal(SIGTTOU, SIG_IGN);
            CHECK(tcsetpgrp(tty, job) == 0 && kill(-job, SIGCONT) == 0);
            CHECK(waitpid(job, &status, WCONTINUED) == job && WIFCONTINUED(status));
            usleep(1000);
            CHECK(tcsetpgrp(tty, getpgrp()) == 0);
            CHECK(kill(-job, SIGKILL) == 0 && waitpid(job, &status, 0) == job);
            job = spawned();
            if (job == 0) {
                char byte;
                setpgid(0, 0);
                if (read(tty, &byte, 1) < 0)
                    _exit(2);
                _exit(1);
            }
            setpgid(job, job);
            CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status));
            int third = WSTOPSIG(status);
            CHECK(kill(-job, SIGKILL) == 0 && waitpid(job, &status, 0) == job);
            snprintf(answer, sizeof answer, "job stopped by %d %d %d", first, second, third);
        } else if (!strcmp(line, "leave")) {
            print_line(tty, "left");
            _exit(17);
        } else if (!strcmp(line, "hang")) {
            signal(SIGHUP, SIG_DFL);
            print_line(tty, "hangs");
            for (;;)
                pause();
        } else {
            snprintf(answer, sizeof answer, "got %s", line);
        }
        print_line(tty, answer);
    }
}

static pid_t led(int master, const char *name, int *slave)
{
    pid_t leader = spawned();
    if (leader == 0) {
        close(master);
        lead(name);
    }
    /* Somebody has it open all the time, so that no reader of the master meets a hang-up. */
    *slave = open(name, O_RDWR | O_NOCTTY);
    CHECK(*slave >= 0);
    return leader;
}

int main(void)
{
    char name[64], again[64], text[64];
    int status, slave;
    struct winsize size = {.ws_row = 10, .ws_col = 20};
    for (int r = 1; r <= 5; r++) {
        int master = open_master(name, sizeof name);
        CHECK(ioctl(master, TIOCSWINSZ, &size) == 0);
        pid_t leader = led(master, name, &slave);
        expect_line(master, "ready");
        CHECK(tcgetsid(master) == leader && tcgetpgrp(master) == leader);
        CHECK(tcgetsid(slave) == -1 && errno == ENOTTY);
        for (int i = 0; i < 4; i++) {
            snprintf(text, sizeof text, "%d.%d", r, i);
            print_line(master, text);
            snprintf(text, sizeof text, "got %d.%d", r, i);
            expect_line(master, text);
        }
        say("%d: lines", r);
        print_line(master, "mode");
        expect_line(master, "mode 0 0");
        size.ws_row++;
        CHECK(ioctl(master, TIOCSWINSZ, &size) == 0);
        print_line(master, "size");
        snprintf(text, sizeof text, "size %d %d", size.ws_row, size.ws_col);
        expect_line(master, text);
        say("%d: mode and size", r);
        print_line(master, "job");
        expect_line(master, "job reads");
        CHECK(tcgetpgrp(master) != leader);
        print_line(master, "this");
        expect_line(master, "job got this");
        expect_line(master, "job done");
        CHECK(tcgetpgrp(master) == leader);
        say("%d: job", r);
        print_line(master, "interrupt");
        expect_line(master, "job waits");
        CHECK(write(master, "\x03", 1) == 1);
        expect_line(master, "job ended by 2");
        say("%d: interrupted", r);
        print_line(master, "stop");
        expect_line(master, "job runs");
        CHECK(write(master, "\x1a", 1) == 1);
        expect_line(master, "job stopped by 20 22 21");
        say("%d: stopped", r);
        CHECK(ptsname_r(master, again, sizeof again) == 0 && !strcmp(name, again));
        if (r % 2) {
            print_line(master, "leave");
            expect_line(master, "left");
            CHECK(waitpid(leader, &status, 0) == leader && WEXITSTATUS(status) == 17);
            CHECK(tcgetsid(master) == -1 && tcgetpgrp(master) <= 0);
            close(slave);
            CHECK(read(master, text, 1) == -1 && errno == EIO);
            close(master);
            say("%d: left", r);
        } else {
            print_line(master, "hang");
            expect_line(master, "hangs");
            close(slave), close(master);
            CHECK(waitpid(leader, &status, 0) == leader && WIFSIGNALED(status));
            say("%d: hung up: %d", r, WTERMSIG(status));
        }
    }
    say("ok");
    return 0;
}
