# Gives rights up, sets limits or takes locks, and looks in each round whether it is so still: held-rights.py WHAT
# WHAT is dropped, kept (nothing is given up, which must be seen), filtered (calls), told-all or told-all-in-tree (threads), limits or locks. A round prints `round N`, and what is
# wrong `WRONG ...`. It ends with a file `end`.
import ctypes, fcntl, os, resource, signal, struct, sys, threading, time

WHAT = sys.argv[1]
NOBODY = 65534
ROOT = os.geteuid() == 0
libc = ctypes.CDLL(None, use_errno=True)


def say(text):
    os.write(1, (text + "\n").encode())


def wrong(text):
    say("WRONG " + text)


def begun():
    # With a word, so that no death comes back to before it.
    open("ready", "w").close()
    say("begun")


def work():
    for _ in range(3000):
        pass


def rounds(turn):
    n = 0
    while not os.path.exists("end"):
        n += 1
        turn(n)
        work()
        if n % 2:
            os.getrandom(2)
            say("round %d" % n)
    say("over")


def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return line.split()[1]


PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAPBSET_READ, PR_SET_SECUREBITS, PR_GET_SECUREBITS = 38, 24, 23, 28, 27
NET_RAW, SYS_PTRACE = 13, 19


def drop():
    libc.prctl(PR_CAPBSET_DROP, SYS_PTRACE, 0, 0, 0)
    libc.prctl(PR_SET_SECUREBITS, 0x23, 0, 0, 0)
    os.setgroups([NOBODY])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def look(who):
    if os.getresuid() != (NOBODY,) * 3 or os.getresgid() != (NOBODY,) * 3 or os.getgroups() != [NOBODY]:
        wrong("%s: ids %r %r %r" % (who, os.getresuid(), os.getresgid(), os.getgroups()))
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        found = status(name)
        if int(found, 16):
            wrong("%s: %s %s" % (who, name, found))
    found = status("CapBnd")
    if libc.prctl(PR_CAPBSET_READ, SYS_PTRACE, 0, 0, 0) != 0 or int(found, 16) >> SYS_PTRACE & 1:
        wrong("%s: bounding set %s" % (who, found))
    found = status("NoNewPrivs")
    if found != "1":
        wrong("%s: no_new_privs %s" % (who, found))
    bits = libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
    if bits != 0x23:
        wrong("%s: securebits %x" % (who, bits))
    attempt(who)


def attempt(who):
    # What only root can. (As a call of this thread alone; the C library's would have all threads do it.)
    def call(*args):
        if libc.syscall(*args) != 0:
            raise OSError(ctypes.get_errno(), "")

    SETRESUID, SETRESGID = 117, 119
    for name, what in (
        ("read", lambda: os.close(os.open("secret", os.O_RDONLY))),
        ("make", lambda: os.close(os.open("roots/made", os.O_WRONLY | os.O_CREAT))),
        ("uid", lambda: call(SETRESUID, 0, 0, 0)),
        ("gid", lambda: call(SETRESGID, 0, 0, 0)),
        ("chown", lambda: os.chown("secret", NOBODY, NOBODY)),
    ):
        try:
            what()
            wrong("%s: could %s" % (who, name))
        except PermissionError:
            pass


def dropped():
    # One that is root and makes others that are not; one that has given all up for ever; and its thread.
    forever = os.fork()
    if forever == 0:
        drop()

        def beside():
            while not os.path.exists("end"):
                look("thread")
                time.sleep(0.0005)

        thread = threading.Thread(target=beside)
        thread.start()
        rounds(lambda n: look("child"))
        thread.join()
        os._exit(0)

    def turn(n):
        child = os.fork()
        if child == 0:
            drop()
            look("new child")
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            wrong("a child ended badly")
        time.sleep(0.002)

    begun()
    rounds(turn)
    os.waitpid(forever, 0)


# Calls, and with which error filters forbid them from the beginning on; more come with the rounds.
FORBIDDEN = {"sched_get_priority_max": (146, 1234), "getpgid": (121, 77), "capget": (125, 1)}
LATER = {"getsid": (124, 88), "getpriority": (140, 55), "sched_getscheduler": (145, 66)}
SECCOMP, SET_MODE_FILTER, TSYNC = 317, 1, 1


def forbid(number, error, flags):
    # ld nr; jeq number; ret errno; ret allow
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
    if libc.syscall(SECCOMP, SET_MODE_FILTER, flags, ctypes.byref(program)) != 0:
        wrong("a filter is refused: %d" % ctypes.get_errno())


def filtered():
    # A thread that gets its filters from the first, new children and new programs, and one that was there before any.
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    free = os.fork()
    if free == 0:
        rounds(lambda n: libc.syscall(146, 1) == 99 or wrong("free: it is not"))
        os._exit(0)
    known = dict(FORBIDDEN)

    def tries(who, calls):
        for name, (number, error) in calls.items():
            ctypes.set_errno(0)
            if libc.syscall(number, 0) != -1 or ctypes.get_errno() != error:
                wrong("%s: %s is allowed (errno %d)" % (who, name, ctypes.get_errno()))
        if libc.prctl(21, 0, 0, 0, 0) != 2:
            wrong("%s: mode %d" % (who, libc.prctl(21, 0, 0, 0, 0)))

    def beside():
        while not os.path.exists("end"):
            tries("thread", dict(known))
            time.sleep(0.0005)

    for number, error in FORBIDDEN.values():
        forbid(number, error, 0)
    thread = threading.Thread(target=beside)
    thread.start()

    def turn(n):
        if n % 8 == 0 and len(known) < len(FORBIDDEN) + len(LATER):
            name = sorted(LATER)[len(known) - len(FORBIDDEN)]
            forbid(*LATER[name], TSYNC)
            known[name] = LATER[name]
        tries("round %d" % n, known)
        child = os.fork()
        if child == 0:
            tries("child", known)
            if n % 4 == 0:
                os.execv("/bin/true", ["true"])
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            wrong("a child ended badly")

    begun()
    rounds(turn)
    thread.join()
    os.waitpid(free, 0)


def told_all(in_tree):
    # A thread that changes its ids has all others change theirs, by a signal of the C library's own.
    child = os.fork() if in_tree else 0
    if child != 0:

        def turn(n):
            short = os.fork()
            if short == 0:
                os._exit(0)
            os.waitpid(short, 0)

        begun()
        rounds(turn)
        os.waitpid(child, 0)
        return

    def beside():
        while not os.path.exists("end"):
            os.setresuid(-1, -1, -1)

    thread = threading.Thread(target=beside)
    thread.start()
    if not in_tree:
        begun()
    rounds(lambda n: os.setresuid(-1, -1, -1))
    thread.join()
    if in_tree:
        os._exit(0)


def kept():
    begun()
    rounds(lambda n: attempt("root"))


LIMITS = {
    "NOFILE": lambda n: 100 + n % 50,
    "CORE": lambda n: 4096 * (n % 7),
    "FSIZE": lambda n: (1 << 33) + n,
    "STACK": lambda n: (8 << 20) + 4096 * (n % 5),
    "CPU": lambda n: 5000 + n,
    "MEMLOCK": lambda n: 65536 + 4096 * (n % 9),
    "NPROC": lambda n: 20000 + n,
    "SIGPENDING": lambda n: 3000 + n,
    "MSGQUEUE": lambda n: 500000 + n,
    "NICE": lambda n: n % 20,
    "RTPRIO": lambda n: n % 50,
    "DATA": lambda n: (1 << 35) + n,
    "RTTIME": lambda n: 1000000 + n,
}
# (ioprio_set, ioprio_get)
IOPRIO = 251, 252


def limits():
    for name in ("NICE", "RTPRIO"):
        try:
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (0, 60))
        except ValueError:
            del LIMITS[name]
    cpus = sorted(os.sched_getaffinity(0))
    setting = lambda n: {
        "affinity": {cpus[n % len(cpus)]},
        "nice": n % 10 if ROOT else min(n, 19),
        "ioprio": 2 << 13 | n % 8,
        "policy": (os.SCHED_BATCH, os.SCHED_OTHER)[n % 2],
        "oom": 100 + n % 300,
        "slack": 60000 + n,
        "umask": (0o27, 0o77, 0o22)[n % 3],
        "dumpable": n % 2 if ROOT else 1,
        "thp": n // 2 % 2,
    }

    def put(n):
        for name, of in LIMITS.items():
            kind = getattr(resource, "RLIMIT_" + name)
            resource.setrlimit(kind, (of(n), resource.getrlimit(kind)[1]))
        s = setting(n)
        os.sched_setaffinity(0, s["affinity"])
        os.sched_setscheduler(0, s["policy"], os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, s["nice"])
        libc.syscall(IOPRIO[0], 1, 0, s["ioprio"])
        open("/proc/self/oom_score_adj", "w").write("%d" % s["oom"])
        libc.prctl(29, s["slack"], 0, 0, 0)
        os.umask(s["umask"])
        libc.prctl(4, s["dumpable"], 0, 0, 0)
        libc.prctl(41, s["thp"], 0, 0, 0)

    def is_so(n):
        for name, of in LIMITS.items():
            found = resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0]
            if found != of(n):
                wrong("round %d: limit %s is %d" % (n, name, found))
        umask = os.umask(0)
        os.umask(umask)
        found = {
            "affinity": os.sched_getaffinity(0),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "ioprio": libc.syscall(IOPRIO[1], 1, 0),
            "policy": os.sched_getscheduler(0),
            "oom": int(open("/proc/self/oom_score_adj").read()),
            "slack": libc.prctl(30, 0, 0, 0, 0),
            "umask": umask,
            "dumpable": libc.prctl(3, 0, 0, 0, 0),
            "thp": libc.prctl(42, 0, 0, 0, 0),
        }
        for name, value in setting(n).items():
            if found[name] != value:
                wrong("round %d: %s is %r, not %r" % (n, name, found[name], value))

    def turn(n):
        if n > 1:
            is_so(n - 1)
        put(n)
        work()
        is_so(n)

    turn(0)
    begun()
    rounds(turn)


F_OFD_SETLK, F_SETLEASE = 37, 1024


def locks():
    files = {}
    for name in ("flock", "posix", "ofd", "lease", "part"):
        files[name] = os.open(name, os.O_RDONLY if name == "lease" else os.O_RDWR)
    # The intruder breaks the lease, of which a signal tells.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fcntl.flock(files["flock"], fcntl.LOCK_EX)
    fcntl.lockf(files["posix"], fcntl.LOCK_EX)
    fcntl.lockf(files["part"], fcntl.LOCK_EX, 10, 5)
    fcntl.fcntl(files["ofd"], F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    fcntl.fcntl(files["lease"], F_SETLEASE, fcntl.F_RDLCK)
    say("locked")
    begun()

    def turn(n):
        # Taken and given back as well, so that there is something to undo.
        fcntl.lockf(files["part"], fcntl.LOCK_EX, 3, 20)
        work()
        fcntl.lockf(files["part"], fcntl.LOCK_UN, 3, 20)
        time.sleep(0.0005)

    rounds(turn)


WAYS = {
    "dropped": dropped,
    "kept": kept,
    "filtered": filtered,
    "told-all": lambda: told_all(False),
    "told-all-in-tree": lambda: told_all(True),
    "limits": limits,
    "locks": locks,
}
WAYS[WHAT]()
