# One of two writers, who do not know of each other: two-writers.py KIND WHO
# KIND is delete, persist or wal (an SQLite database), dotlock or fcntl (a mailbox), rotated (a log).
# It writes numbered lines, tells each third number, and goes on behind its last line if it begins anew.
# `ours` ends with a file `end`, `theirs` with `over`, and `theirs` rotates the log.
import fcntl, glob, os, sys, time

KIND, WHO = sys.argv[1:3]
LAST = {"ours": "end", "theirs": "over"}[WHO]


def text(n):
    return "%s %d %s" % (WHO, n, chr(97 + n % 26) * (n * 37 % 200))


def work():
    # What it has written is not committed meanwhile.
    if WHO == "ours":
        for _ in range(20000):
            pass


def database():
    import sqlite3

    c = sqlite3.connect("d.db", isolation_level=None, timeout=60)
    c.execute("pragma journal_mode=" + KIND)
    c.execute("pragma cache_size=5")
    c.execute("pragma cache_spill=5")
    n = c.execute("select coalesce(max(n), 0) from t where who = ?", (WHO,)).fetchone()[0]

    def put(n):
        c.execute("begin immediate")
        c.execute("insert into t values(?, ?, ?)", (WHO, n, text(n)))
        c.execute("update counts set n = n + 1 where who = ?", (WHO,))
        if n % 7 == 0:
            # More than the cache has room for, and gone again with the savepoint.
            c.execute("savepoint s")
            for i in range(20):
                c.execute("insert into t values('nobody', ?, ?)", (i, "y" * 900))
            c.execute("rollback to s")
        work()
        c.execute("commit")

    return n, put


def own_last(names):
    last = 0
    for name in names:
        for line in open(name, errors="replace"):
            words = line.split(" ")
            if words[0] == WHO and words[1:] and words[1].isdigit() and line == text(int(words[1])) + "\n":
                last = max(last, int(words[1]))
    return last


def mailbox():
    n = own_last(glob.glob("box"))
    try:
        if open("box.lock").read() == WHO:
            os.unlink("box.lock")
    except FileNotFoundError:
        pass

    def put(n):
        line = (text(n) + "\n").encode()
        if KIND == "dotlock":
            while True:
                try:
                    lock = os.open("box.lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    break
                except FileExistsError:
                    time.sleep(0.001)
            os.write(lock, WHO.encode())
            os.close(lock)
        box = os.open("box", os.O_RDWR | os.O_CREAT)
        if KIND == "fcntl":
            fcntl.lockf(box, fcntl.LOCK_EX)
        end = os.lseek(box, 0, os.SEEK_END)
        if end and os.pread(box, 1, end - 1) != b"\n":
            # Somebody has died in the middle of a line, and is not resumed.
            end += os.pwrite(box, b"\n", end)
        half = len(line) // 2
        os.pwrite(box, line[:half], end)
        work()
        os.pwrite(box, line[half:], end + half)
        work()
        os.close(box)
        if KIND == "dotlock":
            os.unlink("box.lock")

    return n, put


def log():
    n = own_last(glob.glob("log*"))
    f = None

    def put(n):
        nonlocal f
        try:
            there = os.stat("log").st_ino
        except FileNotFoundError:
            there = 0
        if f is None or os.fstat(f).st_ino != there:
            if f is not None:
                os.close(f)
            f = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(f, (text(n) + "\n").encode())
        work()
        if WHO == "theirs" and n % 40 == 0:
            os.rename("log", "log.%d" % len(glob.glob("log.*")))

    return n, put


make = {"dotlock": mailbox, "fcntl": mailbox, "rotated": log}.get(KIND, database)
n, put = make()
open("ready" if WHO == "ours" else "open", "w").close()
os.write(1, b"0\n")
while not os.path.exists(LAST):
    n += 1
    try:
        put(n)
    except Exception as e:
        print("failed:", WHO, n, getattr(e, "sqlite_errorname", e), sorted(glob.glob("d.db*")), file=sys.stderr)
        raise
    if n % 3 == 0:
        os.getrandom(4)
        os.write(1, b"%d\n" % n)
    time.sleep(0.001 if WHO == "ours" else 0.02 if KIND in ("delete", "persist", "wal") else 0.003)
os.write(1, b"%d\n" % n)
