# Notes each line that comes: observer.py CHANNEL WHERE, into the file `seen`. Says first where it listens.
# It ends with a file `over`.
import ctypes, fcntl, os, select, signal, socket, struct, sys

CHANNEL, WHERE = sys.argv[1:3]
seen = os.open("seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def say(text):
    os.write(1, (text + "\n").encode())


def follow(fd, read):
    while True:
        if select.select([fd], [], [], 0.05)[0]:
            got = read()
            if got == b"":
                break
            os.write(seen, got)
        elif os.path.exists("over"):
            break


def stream(family, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.bind(address)
    s.listen()
    say("at %s" % (s.getsockname()[1] if family == socket.AF_INET else WHERE))
    c = s.accept()[0]
    follow(c, lambda: c.recv(65536))


def datagrams(family, address):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    s.bind(address)
    say("at %s" % (s.getsockname()[1] if family == socket.AF_INET else WHERE))
    follow(s, lambda: s.recv(65536) + b"\n")


def kmsg():
    f = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(f, 0, os.SEEK_END)
    say("at kmsg")

    def read():
        try:
            text = os.read(f, 65536).partition(b";")[2].split(b"\n")[0]
        except BlockingIOError:
            return b"\n"
        mine = text.startswith(WHERE.encode() + b" ")
        return text[len(WHERE) + 1 :] + b"\n" if mine else b"\n"

    follow(f, read)


def tun():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    say("at %s" % WHERE)
    # It is there only when the program has made it.
    while not os.path.exists("made"):
        select.select([], [], [], 0.01)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", WHERE.encode(), 1 | 64))
    s.bind((WHERE, 0x0800))
    open("up", "w").close()

    def read():
        try:
            packet = s.recv(65536)
        except OSError:
            # The program has ended, and the device with it.
            return b""
        return packet[20:] + b"\n" if packet[9] == 253 else b"\n"

    follow(s, read)


def signals():
    libc = ctypes.CDLL(None)
    number = signal.SIGRTMIN + 1
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    sets = ctypes.create_string_buffer(128)
    libc.sigaddset(sets, int(number))
    f = libc.signalfd(-1, sets, os.O_NONBLOCK)
    say("at %d" % os.getpid())

    def read():
        # (Its value stands at 44; nothing random has room there.)
        return b"line %d -\n" % struct.unpack_from("i", os.read(f, 128), 44)

    follow(f, read)


{
    "pipe": lambda: follow(0, lambda: os.read(0, 65536)),
    "tcp": lambda: stream(socket.AF_INET, ("127.0.0.1", 0)),
    "unix": lambda: stream(socket.AF_UNIX, WHERE),
    "udp": lambda: datagrams(socket.AF_INET, ("127.0.0.1", 0)),
    "unix-datagram": lambda: datagrams(socket.AF_UNIX, WHERE),
    "kmsg": kmsg,
    "tun": tun,
    "signal": signals,
}[CHANNEL]()
