# Prints numbered lines with a random sum, and has one way with SIGTERM and SIGHUP, which it must not get.
import ctypes, os, random, signal, struct, subprocess, sys, threading, time

way, lines = sys.argv[1], int(sys.argv[2])
BOTH = {signal.SIGTERM, signal.SIGHUP}


def got(*_):
    os.write(1, b"GOT A SIGNAL\n")


def nothing():
    pass


look = nothing
if way == "handler":
    for number in BOTH:
        signal.signal(number, got)
elif way == "ignores":
    for number in BOTH:
        signal.signal(number, signal.SIG_IGN)
elif way == "blocks":
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)

    def look():
        if signal.sigpending() & BOTH:
            got()
elif way == "waits":
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)

    def wait():
        while True:
            signal.sigwait(BOTH)
            got()

    threading.Thread(target=wait, daemon=True).start()
elif way == "signalfd":
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
    mask = struct.pack("Q", 1 << signal.SIGTERM - 1 | 1 << signal.SIGHUP - 1)
    fd = ctypes.CDLL(None).signalfd(-1, ctypes.create_string_buffer(mask.ljust(128, b"\0")), 0o4000)

    def look():
        try:
            if os.read(fd, 1000):
                got()
        except BlockingIOError:
            pass
elif way == "tree":
    # A child in a session of its own, one that waits for it, and one that reads what it says.
    script = "while read n; do echo $n; done"
    child = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sleeper = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
elif way == "own":
    # What it sends itself it gets.
    mine = []
    signal.signal(signal.SIGTERM, lambda *_: mine.append(1))
    helper = subprocess.Popen(["/bin/sleep", "1000"])

total = 0
for number in range(lines):
    total += random.randrange(1000)
    text = "%d %d" % (number, total)
    if way == "tree":
        child.stdin.write(b"%d\n" % number)
        child.stdin.flush()
        assert child.stdout.readline() == b"%d\n" % number
        assert sleeper.poll() is None, sleeper.poll()
    if way == "own":
        before = len(mine)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(mine) == before + 1
    print(text, flush=True)
    look()
    time.sleep(0.02)
if way == "tree":
    sleeper.terminate()
    assert sleeper.wait() == -signal.SIGTERM
    child.stdin.close()
    child.wait()
if way == "own":
    helper.terminate()
    assert helper.wait() == -signal.SIGTERM
print("end", flush=True)
