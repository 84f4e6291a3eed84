#include <sys/xattr.h>

/* Extended attributes are state like contents: set, replaced, read and removed, and the same again after a rollback. */

static const char *value(const char *path, const char *name)
{
    static char text[64];
    ssize_t len = getxattr(path, name, text, sizeof text - 1);
    if (len < 0)
        return errno == ENODATA ? "none" : "fails";
    text[len] = 0;
    return text;
}

int main(void)
{
    char text[64];
    int fd = open("attributed", O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0);
    if (setxattr("attributed", "user.first", "x", 1, 0) == -1 && errno == EOPNOTSUPP) {
        say("the file system has no attributes");
        return 0;
    }
    CHECK(removexattr("attributed", "user.first") == 0);
    for (int r = 1; r <= ROUNDS; r++) {
        /* Made new: an attribute that a rollback has left behind shows here. */
        CHECK(setxattr("attributed", "user.first", "new", 3, XATTR_CREATE) == 0);
        say("round %d %s", r, value("attributed", "user.first"));
        sprintf(text, "value %d", r);
        CHECK(fsetxattr(fd, "user.first", text, strlen(text), XATTR_REPLACE) == 0);
        say("round %d %s, other %s", r, value("attributed", "user.first"), value("attributed", "user.other"));
        CHECK(setxattr("attributed", "user.other", text, strlen(text), 0) == 0);
        CHECK(fremovexattr(fd, "user.first") == 0);
        say("round %d %s, other %s", r, value("attributed", "user.first"), value("attributed", "user.other"));
        CHECK(removexattr("attributed", "user.first") == -1 && errno == ENODATA);
    }
    say("ok");
    return 0;
}
