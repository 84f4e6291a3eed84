/* What a program may do, given up step by step: groups, the bounding set, capabilities with and without ids, ambient
 * ones, securebits, ids, no_new_privs; and a thread that gives up other things than the first. As an ordinary user only
 * what that may do. */
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

struct rights {
    uid_t uids[4];
    gid_t gids[4];
    int group_count;
    gid_t groups[128];
    uint32_t caps[2][3];
    uint64_t bounding, ambient;
    int securebits, no_new_privs, keep_caps;
};

static void look(struct rights *r)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    memset(r, 0, sizeof *r);
    CHECK(getresuid(r->uids, r->uids + 1, r->uids + 2) == 0);
    CHECK(getresgid(r->gids, r->gids + 1, r->gids + 2) == 0);
    r->uids[3] = syscall(SYS_setfsuid, -1);
    r->gids[3] = syscall(SYS_setfsgid, -1);
    CHECK((r->group_count = getgroups(128, r->groups)) >= 0);
    CHECK(syscall(SYS_capget, &header, r->caps) == 0);
    for (int cap = 0; cap < 41; cap++) {
        r->bounding |= (uint64_t)(prctl(PR_CAPBSET_READ, cap) == 1) << cap;
        r->ambient |= (uint64_t)(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1) << cap;
    }
    r->securebits = prctl(PR_GET_SECUREBITS);
    r->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    r->keep_caps = prctl(PR_GET_KEEPCAPS);
}

static void tell(const char *who, int round, const struct rights *r)
{
    say("%s %d: %u %u %u %u, %u %u %u %u, %d groups, caps %x %x %x, bounding %llx, ambient %llx, bits %x, nnp %d, keep %d",
        who, round, r->uids[0], r->uids[1], r->uids[2], r->uids[3], r->gids[0], r->gids[1], r->gids[2], r->gids[3],
        r->group_count, r->caps[0][0], r->caps[0][1], r->caps[0][2], (unsigned long long)r->bounding,
        (unsigned long long)r->ambient, r->securebits, r->no_new_privs, r->keep_caps);
}

static void keep(unsigned effective, unsigned permitted, unsigned inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{effective, permitted, inheritable}, {0, 0, 0}};
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

static pthread_barrier_t turn;

/* The raw calls change this thread alone. */
static void *other(void *unused)
{
    struct rights had, have;
    for (int r = 1; r <= ROUNDS; r++) {
        pthread_barrier_wait(&turn);
        if (geteuid() == 0 && r == 4)
            syscall(SYS_setfsuid, 1234), syscall(SYS_setfsgid, 4321);
        if (geteuid() == 0 && r == 6) {
            gid_t own[3] = {7, 8, 9};
            CHECK(syscall(SYS_setgroups, 3, own) == 0);
        }
        look(&had);
        tell("thread", r, &had);
        look(&have);
        CHECK(memcmp(&had, &have, sizeof had) == 0);
        pthread_barrier_wait(&turn);
    }
    return unused;
}

int main(void)
{
    int root = geteuid() == 0;
    pthread_t thread;
    CHECK(pthread_barrier_init(&turn, 0, 2) == 0 && pthread_create(&thread, 0, other, 0) == 0);
    struct rights had, have;
    for (int r = 1; r <= ROUNDS; r++) {
        gid_t groups[100];
        for (int i = 0; i < 100; i++)
            groups[i] = 1000 + i;
        switch (root ? r : r == 20 ? 20 : 0) {
        case 2: CHECK(syscall(SYS_setgroups, 100, groups) == 0); break;
        case 3: CHECK(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE) == 0 && prctl(PR_CAPBSET_DROP, CAP_NET_RAW) == 0); break;
        case 5: CHECK(syscall(SYS_setresuid, -1, 65534, -1) == 0); break;
        case 7: CHECK(syscall(SYS_setresuid, -1, 0, -1) == 0); break;
        case 8: CHECK(syscall(SYS_setgroups, 2, groups + 50) == 0); break;
        case 9: CHECK(syscall(SYS_setresgid, 100, 200, 300) == 0); break;
        case 10: {
            unsigned some = had.caps[0][1] & ~(1u << CAP_SYS_BOOT);
            keep(some, some, 1 << CAP_NET_BIND_SERVICE | 1 << CAP_KILL);
            break;
        }
        case 11: CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0); break;
        case 12: CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_KEEP_CAPS) == 0); break;
        case 14: CHECK(syscall(SYS_setresuid, 65534, 65534, 65534) == 0); break;
        case 16: keep(1 << CAP_KILL, 1 << CAP_KILL | 1 << CAP_CHOWN, 1 << CAP_KILL); break;
        case 18: keep(0, 0, 0); break;
        case 20: CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); break;
        }
        look(&had);
        tell("first", r, &had);
        look(&have);
        CHECK(memcmp(&had, &have, sizeof had) == 0);
        if (root && r >= 14) {
            CHECK(open("/etc/shadow", O_RDONLY) == -1 && errno == EACCES);
            CHECK(syscall(SYS_setuid, 0) == -1 && errno == EPERM);
        }
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
    }
    CHECK(pthread_join(thread, 0) == 0);
    say("ok");
    return 0;
}
