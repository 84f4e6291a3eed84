/* Random changes of files, by a seed: whatever a rollback leaves wrong shows in a chain of sums over the whole tree,
 * which is told every few steps. FILE_STORM is "SEED STEPS [DIRECTORY]", the directory being one on another file
 * system. Nothing that is told depends on time, inodes, or the file system that it runs on but by its errors. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static struct { unsigned kind; int64_t r; uint64_t chain; } told_of[1000];
static uint64_t seed, chain = 14695981039346656037u;
static char roots[2][PATH_MAX];
static int root_count = 1;
static char other[PATH_MAX / 2];
static unsigned kind;
static int slots[6] = {-1, -1, -1, -1, -1, -1};

static uint32_t chance(uint32_t below) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

static void mix(const void *at, size_t len) {
    const unsigned char *bytes = at;
    for (size_t i = 0; i < len; i++) chain = (chain ^ bytes[i]) * 1099511628211u;
}

static void mix_number(int64_t n) { mix(&n, sizeof n); }

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* All of a tree: names, kinds, modes, owners, links, contents, attributes, and times of files that were set on purpose. */
static void walk(int dir, const char *name) {
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW)) return mix_number(errno);
    mix(name, strlen(name));
    mix_number(st.st_mode);
    mix_number(st.st_uid);
    mix_number(st.st_gid);
    if (S_ISREG(st.st_mode) && st.st_mtime < 1000000000) mix_number(st.st_mtime);
    char path[64], value[256], target[256];
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlinkat(dir, name, target, sizeof target);
        if (n > 0) mix(target, n);
        return;
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
    if (fd < 0) return mix_number(errno);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = getxattr(path, "user.storm", value, sizeof value);
    mix_number(n < 0 ? -errno : n);
    if (n > 0) mix(value, n);
    n = getxattr(path, "system.posix_acl_access", value, sizeof value);
    mix_number(n);
    if (n > 0) mix(value, n);
    if (S_ISREG(st.st_mode)) {
        mix_number(st.st_nlink);
        mix_number(st.st_size);
        static char piece[65536];
        while ((n = read(fd, piece, sizeof piece)) > 0) mix(piece, n);
        close(fd);
        return;
    }
    DIR *list = fdopendir(fd);
    char *names[256];
    int count = 0;
    for (struct dirent *e; count < 256 && (e = readdir(list));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) names[count++] = strdup(e->d_name);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) {
        walk(fd, names[i]);
        free(names[i]);
    }
    closedir(list);
    mix_number(count);
}

static void walk_all(void) {
    for (int i = 0; i < root_count; i++) {
        walk(AT_FDCWD, roots[i]);
    }
    for (int i = 0; i < 6; i++) {
        struct stat st;
        if (slots[i] >= 0 && !fstat(slots[i], &st)) {
            mix_number(st.st_size);
            mix_number(st.st_nlink);
            mix_number(lseek(slots[i], 0, SEEK_CUR));
        }
    }
}

/* A name from a few, so that they meet: absolute, or relative to wherever the program is. */
static void some_name(char *path) {
    static const char *below[] = {"", "", "", "d0/", "d1/", "d0/d0/"};
    const char *root = chance(3) ? roots[chance(root_count)] : ".";
    snprintf(path, PATH_MAX, "%s/%s%c%u", root, below[chance(6)], "nnd"[chance(3)], chance(4));
}

static char bytes[40000];

static int some_bytes(void) {
    static const int lens[] = {1, 3, 100, 4096, 5000, 33000};
    int len = lens[chance(chance(4) ? 4 : 6)];
    for (int i = 0; i < len; i++) bytes[i] = (char)(seed >> (i % 7 * 8)) + i;
    return len;
}

static const int open_flags[] = {O_RDWR, O_WRONLY, O_RDWR | O_APPEND, O_WRONLY | O_TRUNC, O_RDWR | O_CREAT,
    O_WRONLY | O_CREAT, O_RDWR | O_CREAT | O_EXCL, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_APPEND,
    O_RDWR | O_CREAT | O_NOFOLLOW};

/* (A name of a file, as a rule: most that begin with d are directories.) */
static int some_file(char *path) {
    char *last = strrchr(path, '/') + 1;
    if (*last == 'd' && chance(4)) *last = 'n';
    return open(path, open_flags[chance(10)] | O_NONBLOCK, chance(2) ? 0666 : 0640);
}

static void acl(char *value) {
    /* version 2: user::rw-, user:1:r--, group::r--, mask::rw-, other::--- */
    static const uint16_t entries[][4] = {
        {1, 6, 0xffff, 0xffff}, {2, 4, 1, 0}, {4, 4, 0xffff, 0xffff}, {16, 6, 0xffff, 0xffff}, {32, 0, 0xffff, 0xffff}};
    uint32_t version = 2;
    memcpy(value, &version, 4);
    memcpy(value + 4, entries, sizeof entries);
}

static int64_t change(void) {
    char a[PATH_MAX], b[PATH_MAX];
    some_name(a);
    some_name(b);
    int fd, to, r = 0, p[2];
    ssize_t n = 0;
    loff_t at = chance(9000), back = 0;
    struct timespec times[2] = {{chance(1000000), 5}, {chance(1000000), chance(1000)}};
    int *slot = &slots[chance(6)];
    kind = chance(46);
    switch (kind) {
    case 0: case 1: case 2:
        if ((fd = some_file(a)) < 0) return -errno;
        n = write(fd, bytes, some_bytes());
        close(fd);
        return n;
    case 3:
        if ((fd = some_file(a)) < 0) return -errno;
        n = pwrite(fd, bytes, some_bytes(), at);
        close(fd);
        return n < 0 ? -errno : n;
    case 4: {
        if ((fd = some_file(a)) < 0) return -errno;
        int len = some_bytes();
        struct iovec parts[2] = {{bytes, len / 2}, {bytes + len / 2, len - len / 2}};
        n = chance(2) ? writev(fd, parts, 2) : pwritev(fd, parts, 2, at);
        close(fd);
        return n < 0 ? -errno : n;
    }
    case 5:
        if ((fd = some_file(a)) < 0) return -errno;
        r = ftruncate(fd, at);
        break;
    case 6: return truncate(a, at) ? -errno : 0;
    case 7: case 8: case 9: case 10: case 11: case 12: {
        static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE};
        if ((fd = open(a, O_RDWR | O_NONBLOCK)) < 0) return -errno;
        int aligned = kind >= 11;
        r = fallocate(fd, modes[kind - 7], aligned ? at & ~4095 : at, aligned ? 4096 : 1 + chance(9000));
        break;
    }
    case 13: case 14: {
        struct stat st;
        if ((fd = open(a, O_RDWR | O_NONBLOCK)) < 0) return -errno;
        if (!fstat(fd, &st) && st.st_size > 0) {
            char *map = mmap(0, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (map != MAP_FAILED) {
                map[at % st.st_size] ^= 85;
                map[st.st_size - 1] += 1;
                if (chance(2)) n = pwrite(fd, bytes, some_bytes(), at % st.st_size);
                map[at % st.st_size] ^= 7;
                munmap(map, st.st_size);
            }
        }
        close(fd);
        return n;
    }
    case 15:
        if ((fd = open(a, O_RDONLY | O_NONBLOCK)) < 0) return -errno;
        if ((to = some_file(b)) >= 0) {
            n = copy_file_range(fd, &at, to, chance(2) ? &back : 0, 1 + chance(9000), 0);
            if (n < 0) n = -errno;
            close(to);
        }
        close(fd);
        return n;
    case 16:
        if ((fd = open(a, O_RDONLY | O_NONBLOCK)) < 0) return -errno;
        if ((to = some_file(b)) >= 0) {
            n = sendfile(to, fd, chance(2) ? &at : 0, 1 + chance(9000));
            if (n < 0) n = -errno;
            close(to);
        }
        close(fd);
        return n;
    case 17:
        if ((fd = open(a, O_RDONLY | O_NONBLOCK)) < 0) return -errno;
        if ((to = some_file(b)) >= 0) {
            if (!pipe(p)) {
                n = splice(fd, &at, p[1], 0, 1 + chance(9000), 0);
                if (n > 0) n = splice(p[0], 0, to, chance(2) ? &back : 0, n, 0);
                if (n < 0) n = -errno;
                close(p[0]);
                close(p[1]);
            }
            close(to);
        }
        close(fd);
        return n;
    case 18: case 19: return link(a, b) ? -errno : 0;
    case 20: return symlink(chance(2) ? b : "n1", a) ? -errno : 0;
    case 21: case 22: return rename(a, b) ? -errno : 0;
    case 23: return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE) ? -errno : 0;
    case 24: return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) ? -errno : 0;
    case 25: case 26:
        if (chance(5)) *(strrchr(a, '/') + 1) = 'd';
        return mkdir(a, chance(2) ? 0777 : 0750) ? -errno : 0;
    case 27: return rmdir(a) ? -errno : 0;
    case 28: case 29: return unlink(a) ? -errno : 0;
    case 30: return chmod(a, 0400 | chance(0400)) ? -errno : 0;
    case 31:
        if ((fd = open(a, O_RDONLY | O_NONBLOCK)) < 0) return -errno;
        r = chance(2) ? fchmod(fd, 0600 | chance(0200)) : geteuid() ? 0 : fchown(fd, chance(3), chance(3));
        break;
    case 32: return geteuid() ? 0 : lchown(a, chance(3), chance(3)) ? -errno : 0;
    case 33: return geteuid() ? 0 : chown(a, chance(3), -1) ? -errno : 0;
    case 34: return utimensat(AT_FDCWD, a, times, chance(2) ? AT_SYMLINK_NOFOLLOW : 0) ? -errno : 0;
    case 35: return setxattr(a, "user.storm", bytes, chance(100), 0) ? -errno : 0;
    case 36: return removexattr(a, "user.storm") ? -errno : 0;
    case 37: {
        char value[64];
        acl(value);
        return setxattr(a, "system.posix_acl_access", value, 44, 0) ? -errno : 0;
    }
    case 38: {
        char name[64];
        if ((fd = open(roots[chance(root_count)], O_TMPFILE | O_RDWR, 0640)) < 0) return -errno;
        n = write(fd, bytes, some_bytes());
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        r = linkat(AT_FDCWD, name, AT_FDCWD, a, AT_SYMLINK_FOLLOW);
        break;
    }
    case 39: return mknod(a, S_IFIFO | 0600, 0) ? -errno : 0;
    case 40: return chdir(a) ? (chdir(roots[chance(root_count)]), -errno) : 0;
    case 41: return umask(chance(2) ? 022 : 027);
    case 42: case 43: case 44:
        if (*slot < 0) {
            struct stat st;
            if (!stat(a, &st) && S_ISFIFO(st.st_mode)) return 0;
            *slot = some_file(a);
            return *slot < 0 ? -errno : 0;
        }
        switch (chance(5)) {
        case 0: return close(*slot), *slot = -1, 0;
        case 1: return lseek(*slot, at, SEEK_SET);
        case 2: return ftruncate(*slot, at) ? -errno : 0;
        default:
            n = write(*slot, bytes, some_bytes());
            return n < 0 ? -errno : n;
        }
    default: {
        int dir = open(roots[chance(root_count)], O_RDONLY | O_DIRECTORY);
        const char *name = chance(2) ? "n0" : "d1";
        r = chance(2) ? mkdirat(dir, name, 0755) : unlinkat(dir, name, chance(2) ? AT_REMOVEDIR : 0);
        n = r ? -errno : 0;
        close(dir);
        return n;
    }
    }
    n = r ? -errno : n;
    close(fd);
    return n;
}

int main(void) {
    const char *told = getenv("FILE_STORM");
    unsigned long long first = 1;
    int steps = 200;
    if (told && sscanf(told, "%llu %d %2000s", &first, &steps, other) < 1) return 2;
    seed = first;
    for (int i = 0; i < 3; i++) chance(2);
    char here[PATH_MAX / 2];
    if (!getcwd(here, sizeof here)) return 2;
    snprintf(roots[0], PATH_MAX, "%s/storm", here);
    if (mkdir(roots[0], 0755)) return 2;
    if (other[0]) {
        snprintf(roots[1], PATH_MAX, "%s/storm", other);
        if (mkdir(roots[1], 0755)) return 2;
        root_count = 2;
    }
    umask(022);
    if (chdir(roots[0])) return 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    int quiet = 1 + chance(24);
    for (int step = 1; step <= steps; step++) {
        int64_t r = change();
        mix_number(r);
        if (chance(3) == 0) walk_all();
        if (chance(quiet) == 0 || step == steps) {
            unsigned char luck;
            if (getrandom(&luck, 1, 0) != 1) return 2;
            walk_all();
            printf("step %d: %016llx\n", step, (unsigned long long)chain);
        }
        if (step < 1000) told_of[step].kind = kind, told_of[step].r = r, told_of[step].chain = chain;
    }
    for (int step = 1; getenv("FILE_STORM_TELL") && step <= steps && step < 1000; step++)
        fprintf(stderr, "%d: kind %u, %lld %016llx\n", step, told_of[step].kind, (long long)told_of[step].r,
            (unsigned long long)told_of[step].chain);
    puts("ok");
    return 0;
}
