//! Messages with an address, under a crash at every single receive: none is lost, none comes twice.
//!
//! The peer is this test, over real sockets. The server counts what it gets and answers each
//! message with the count; it dies right behind the kernel's giving it the Nth one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const UDP: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
n = 0
while True:
    d, who = s.recvfrom(100)
    if d == b'end': break
    n += 1
    s.sendto(b'%d:%s' % (n, d), who)
print('total', n, flush=True)
";

const UDP_RECVMSG: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))
s.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: control data with each
print(s.getsockname()[1], flush=True)
n = 0
while True:
    d, control, flags, who = s.recvmsg(100, 256)
    assert len(control) == 1 and flags == 0, (control, flags)
    if d == b'end': break
    n += 1
    s.sendmsg([b'%d:%s' % (n, d)], [], 0, who)
print('total', n, flush=True)
";

const UNIX: &str = "
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('server')
print('bound', flush=True)
n = 0
while True:
    d, control, flags, who = s.recvmsg(100, 64)
    if d == b'end': break
    n += 1
    s.sendto(b'%d:%s' % (n, d), who)
print('total', n, flush=True)
";

const TCP_RECVMSG: &str = "
import socket
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(1)
print(s.getsockname()[1], flush=True)
c, _ = s.accept()
n = 0
while True:
    d, control, flags, who = c.recvmsg(100)
    assert who is None and not control, (who, control)
    if d == b'end': break
    n += 1
    c.sendall(b'%d:%s' % (n, d))
print('total', n, flush=True)
";

const UNIX_STREAM: &str = "
import socket
s = socket.socket(socket.AF_UNIX); s.bind('server'); s.listen(1)
print('bound', flush=True)
c, _ = s.accept()
n = 0
while True:
    d = c.recvmsg(100)[0]
    if d == b'end': break
    n += 1
    c.sendall(b'%d:%s' % (n, d))
print('total', n, flush=True)
";

struct Server {
    dir: PathBuf,
    child: Child,
    told: BufReader<ChildStdout>,
    /// What it said first.
    place: String,
}

impl Server {
    fn start(program: &str, protocol: &str, fault: &str) -> Server {
        let name = format!("dcrun-messages-{}-{protocol}-{}", std::process::id(), {
            static NTH: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            NTH.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        });
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut child = dcrun(&dir)
            .args(["--fresh", "--name", "s", "--protocol", protocol])
            .args(["--", "/usr/bin/python3", "-c", program])
            .env("DCRUN_FAULT", fault)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut place = String::new();
        told.read_line(&mut place).unwrap();
        Server {
            dir,
            child,
            told,
            place: place.trim().to_owned(),
        }
    }

    fn port(&self) -> u16 {
        self.place.parse().unwrap()
    }

    /// Its last word and what was counted.
    fn end(mut self) -> (String, Value) {
        let mut rest = String::new();
        self.told.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        let counted = dcrun(&self.dir).args(["stats", "s", "--json"]).output();
        (
            rest,
            serde_json::from_slice(&counted.unwrap().stdout).unwrap(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = dcrun(&self.dir).args(["rm", "s"]).output();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn dcrun(dir: &PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
    command
        .env("DCRUN_STATE", dir.join("state"))
        .current_dir(dir);
    command
}

trait Peer {
    fn send(&mut self, message: &[u8]);
    /// One answer, of so many bytes if it is a stream.
    fn hear(&mut self, len: usize) -> String;
}

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

impl Peer for UdpSocket {
    fn send(&mut self, message: &[u8]) {
        UdpSocket::send(self, message).unwrap();
    }
    fn hear(&mut self, _: usize) -> String {
        let mut bytes = [0; 200];
        let n = self.recv(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }
}

impl Peer for UnixDatagram {
    fn send(&mut self, message: &[u8]) {
        UnixDatagram::send(self, message).unwrap();
    }
    fn hear(&mut self, _: usize) -> String {
        let mut bytes = [0; 200];
        let n = self.recv(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }
}

struct Stream<T>(T);

impl<T: Read + Write> Peer for Stream<T> {
    fn send(&mut self, message: &[u8]) {
        self.0.write_all(message).unwrap();
    }
    fn hear(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

type Connect = fn(&Server) -> Box<dyn Peer>;

fn udp(server: &Server) -> Box<dyn Peer> {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(("127.0.0.1", server.port())).unwrap();
    peer.set_read_timeout(PATIENCE).unwrap();
    Box::new(peer)
}

fn unix(server: &Server) -> Box<dyn Peer> {
    let peer = UnixDatagram::bind(server.dir.join("peer")).unwrap();
    peer.connect(server.dir.join("server")).unwrap();
    peer.set_read_timeout(PATIENCE).unwrap();
    Box::new(peer)
}

fn tcp(server: &Server) -> Box<dyn Peer> {
    let peer = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    peer.set_read_timeout(PATIENCE).unwrap();
    Box::new(Stream(peer))
}

fn unix_stream(server: &Server) -> Box<dyn Peer> {
    let peer = UnixStream::connect(server.dir.join("server")).unwrap();
    peer.set_read_timeout(PATIENCE).unwrap();
    Box::new(Stream(peer))
}

/// One message after the other, or several at once where they keep apart.
fn converse(server: Server, connect: Connect, at_once: usize) -> Value {
    let mut peer = connect(&server);
    let (mut sent, mut heard) = (0, 0);
    while heard < MESSAGES {
        for _ in 0..at_once {
            sent += 1;
            peer.send(format!("message {sent}").as_bytes());
        }
        while heard < sent {
            heard += 1;
            let want = format!("{heard}:message {heard}");
            assert_eq!(peer.hear(want.len()), want);
        }
    }
    peer.send(b"end");
    let (rest, counted) = server.end();
    assert_eq!(rest, format!("total {sent}\n"));
    counted
}

const MESSAGES: usize = 6;

/// A crash behind each receive, under protocols that commit, log, and choose.
fn crashes_everywhere(program: &str, connect: Connect, at_once: usize) {
    let mut recoveries = 0;
    for protocol in ["cbndvs", "cand", "cbndvs-log", "cand-log", "auto"] {
        for nth in 1..=MESSAGES + 1 {
            let server = Server::start(program, protocol, &format!("after-read:{nth}"));
            let counted = converse(server, connect, at_once);
            assert!(counted["receive_events"].as_u64() > Some(0));
            recoveries += counted["recoveries"].as_u64().unwrap();
        }
    }
    assert_eq!(
        recoveries,
        5 * (MESSAGES as u64 + 1),
        "each has crashed once"
    );
}

#[test]
fn udp_with_an_address() {
    crashes_everywhere(UDP, udp, 1);
}

#[test]
fn udp_with_control_data_several_waiting() {
    crashes_everywhere(UDP_RECVMSG, udp, 3);
}

#[test]
fn unix_datagrams_several_waiting() {
    crashes_everywhere(UNIX, unix, 3);
}

#[test]
fn recvmsg_from_a_tcp_connection() {
    crashes_everywhere(TCP_RECVMSG, tcp, 1);
}

#[test]
fn recvmsg_from_a_unix_stream() {
    crashes_everywhere(UNIX_STREAM, unix_stream, 1);
}
