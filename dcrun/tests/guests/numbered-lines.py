# Lets numbered lines out, each with a random word: numbered-lines.py CHANNEL WHERE PACE LAST
# PACE is in microseconds, busy and asleep by turns; it ends with a file `end`, or behind its LAST line.
import ctypes, fcntl, os, signal, socket, struct, sys, time

CHANNEL, WHERE, PACE, LAST = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def pipe():
    return lambda line: os.write(1, line + b"\n")


def stream(family, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.connect(address)
    return lambda line: s.sendall(line + b"\n")


def datagrams(family, address):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.connect(address)
    # By turns with the four ways of sending.
    ways = [
        lambda line: s.send(line),
        lambda line: os.write(s.fileno(), line),
        lambda line: s.sendmsg([line[:3], line[3:]]),
        lambda line: os.writev(s.fileno(), [line[:5], line[5:]]),
    ]
    turn = 0

    def put(line):
        nonlocal turn
        turn += 1
        ways[turn % 4](line)

    return put


def kmsg():
    f = None
    turn = 0

    def put(line):
        # The kernel takes ten lines of an open file, and drops others.
        nonlocal f, turn
        if turn % 8 == 0:
            if f is not None:
                os.close(f)
            f = os.open("/dev/kmsg", os.O_WRONLY)
        turn += 1
        os.write(f, b"<7>" + WHERE.encode() + b" " + line + b"\n")

    return put


def tun():
    f = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(f, 0x400454CA, struct.pack("16sH22x", WHERE.encode(), 0x1001))
    open("made", "w").close()
    while not os.path.exists("up"):
        time.sleep(0.005)

    def put(line):
        # An IPv4 packet of a protocol that nobody knows.
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(line), 0, 0, 9, 253, 0, b"\x0a\x63\0\1", b"\x0a\x63\0\2")
        os.write(f, header + line)

    return put


def signals():
    libc = ctypes.CDLL(None)
    libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    pid = int(WHERE)

    def put(line):
        # What comes with it has room for a number only.
        libc.sigqueue(pid, signal.SIGRTMIN + 1, int(line.split()[1]))

    return put


put = {
    "pipe": pipe,
    "tcp": lambda: stream(socket.AF_INET, ("127.0.0.1", int(WHERE))),
    "unix": lambda: stream(socket.AF_UNIX, WHERE),
    "udp": lambda: datagrams(socket.AF_INET, ("127.0.0.1", int(WHERE))),
    "unix-datagram": lambda: datagrams(socket.AF_UNIX, WHERE),
    "kmsg": kmsg,
    "tun": tun,
    "signal": signals,
}[CHANNEL]()
open("ready", "w").close()
n = 0
while n < LAST and not os.path.exists("end"):
    n += 1
    put(b"line %d %s" % (n, os.getrandom(6).hex().encode()))
    if n % 2:
        time.sleep(PACE / 1e6)
    else:
        until = time.monotonic() + PACE / 1e6
        while time.monotonic() < until:
            pass
with open("sent", "w") as f:
    f.write("%d\n" % n)
while not os.path.exists("end"):
    time.sleep(0.01)
