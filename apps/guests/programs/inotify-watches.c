/*
 * Watches of files: each keeps its number, and who is told that the queue ran over looks for itself.
 */
#include <poll.h>
#include <sys/inotify.h>

enum { DIRS = 4 };

static int instance, watch[DIRS];
static int is_seen[DIRS];

static void make(int dir, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "d%d/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && !close(fd));
}

/* Events of a round; those of other rounds may come late, and none has to come twice. */
static void look(const char *wanted)
{
    char events[4096] __attribute__((aligned(8)));
    struct pollfd p = {instance, POLLIN, 0};
    CHECK(poll(&p, 1, 20000) == 1);
    ssize_t n = read(instance, events, sizeof events);
    CHECK(n > 0);
    for (char *at = events; at < events + n;) {
        struct inotify_event *event = (void *)at;
        at += sizeof *event + event->len;
        if (event->mask & IN_Q_OVERFLOW) {
            CHECK(event->wd == -1);
            for (int dir = 0; dir < DIRS; dir++) {
                char path[128];
                snprintf(path, sizeof path, "d%d/%s", dir, wanted);
                is_seen[dir] |= access(path, F_OK) == 0;
            }
            continue;
        }
        /* Of a gap: that the queue ran over was told before it. */
        if (event->mask & IN_IGNORED)
            continue;
        int dir = 0;
        while (dir < DIRS && watch[dir] != event->wd)
            dir++;
        CHECK(dir < DIRS);
        if ((event->mask & IN_CREATE) && strcmp(event->name, wanted) == 0)
            is_seen[dir] = 1;
    }
}

int main(void)
{
    char name[64];
    instance = inotify_init1(IN_CLOEXEC);
    CHECK(instance >= 0);
    for (int dir = 0; dir < DIRS; dir++) {
        snprintf(name, sizeof name, "d%d", dir);
        CHECK(!mkdir(name, 0700));
        /* A gap in the numbers. */
        watch[dir] = inotify_add_watch(instance, ".", IN_DELETE_SELF);
        CHECK(watch[dir] > 0 && !inotify_rm_watch(instance, watch[dir]));
        char gone[256];
        CHECK(read(instance, gone, sizeof gone) > 0);
        watch[dir] = inotify_add_watch(instance, name, IN_CREATE);
        say("watch %d of %s", watch[dir], name);
    }
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(name, sizeof name, "file-%d", round);
        memset(is_seen, 0, sizeof is_seen);
        for (int dir = 0; dir < DIRS; dir++) {
            say("round %d: %d", round, dir);
            make(dir, name);
            while (!is_seen[dir])
                look(name);
        }
        say("round %d: all seen", round);
    }
    for (int dir = 0; dir < DIRS; dir++)
        CHECK(!inotify_rm_watch(instance, watch[dir]));
    CHECK(inotify_rm_watch(instance, watch[0]) == -1 && errno == EINVAL);
    say("ok");
    return 0;
}
