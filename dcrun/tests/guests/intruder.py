# Tries all the time to get the locks that somebody holds: intruder.py. It prints `tried N` and, when it is let in,
# `IN KIND TIME`, and gives the lock back. It ends with a file `over`.
import fcntl, os, struct, time

F_OFD_SETLK = 37


def flock():
    f = os.open("flock", os.O_RDWR)
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(f)


def record(name, start):
    def attempt():
        f = os.open(name, os.O_RDWR)
        try:
            fcntl.fcntl(f, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, 1, 0))
            return True
        except OSError:
            return False
        finally:
            os.close(f)

    return attempt


def lease():
    # (Who opens it for writing breaks a lease for reading.)
    try:
        os.close(os.open("lease", os.O_WRONLY | os.O_NONBLOCK))
        return True
    except BlockingIOError:
        return False


attempts = {
    "flock": flock,
    "posix": record("posix", 0),
    "ofd": record("ofd", 0),
    "part": record("part", 12),
    "lease": lease,
}
n = 0
while not os.path.exists("over"):
    n += 1
    for kind, attempt in attempts.items():
        if attempt():
            print("IN %s %.6f" % (kind, time.monotonic()), flush=True)
    if n % 20 == 1:
        print("tried %d" % n, flush=True)
    time.sleep(0.0003)
