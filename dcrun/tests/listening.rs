//! A server that dies with its dcrun listens again, unless somebody else has its address by then: that is said, nothing is
//! lost, and it goes on once the address is free.

mod place;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use place::{Place, kills};

/// Counts the lines that came, from whomever.
const SERVER: &str = "
import selectors, socket, sys
s = selectors.DefaultSelector()
tcp = socket.create_server(('127.0.0.1', int(sys.argv[1])))
path = socket.socket(socket.AF_UNIX)
path.bind('here')
path.listen()
for server in tcp, path: s.register(server, selectors.EVENT_READ, True)
count = 0
while True:
    for key, _ in s.select():
        if key.data:
            s.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
            continue
        try: line = key.fileobj.recv(100)
        except ConnectionResetError: line = b''
        if line:
            count += 1
            key.fileobj.send(b'%d\\n' % count)
        else:
            s.unregister(key.fileobj)
            key.fileobj.close()
";

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

struct Server {
    place: Place,
    port: u16,
}

impl Server {
    fn new(name: &str) -> Server {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Server {
            place: Place::new(name),
            port: free.local_addr().unwrap().port(),
        }
    }

    fn start(&self) -> Keeper {
        let port = self.port.to_string();
        let args = ["--name", "t", "/usr/bin/python3", "-c", SERVER, &port];
        let mut command = self.place.dcrun(&args);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        Keeper(command.spawn().unwrap())
    }

    fn kill_all(&self, mut keeper: Keeper) {
        let worker = self.place.worker().unwrap();
        keeper.0.kill().unwrap();
        kills(worker);
        keeper.0.wait().unwrap();
    }

    /// Asks until there is an answer: what died may take a connection or two with it.
    fn answer(&self) -> u32 {
        soon(|| ask(self.connect()).ok())
    }

    /// A connection by TCP, as soon as there is somebody.
    fn connect(&self) -> TcpStream {
        let stream = soon(|| TcpStream::connect(("127.0.0.1", self.port)).ok());
        stream.set_read_timeout(PATIENCE).unwrap();
        stream
    }

    fn connect_by_path(&self) -> UnixStream {
        let stream = soon(|| UnixStream::connect(self.place.0.join("here")).ok());
        stream.set_read_timeout(PATIENCE).unwrap();
        stream
    }
}

/// Does not outlive a test that fails.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

impl Keeper {
    /// Its exit status, and what it said.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut errors = self.0.stderr.take().unwrap();
        errors.read_to_string(&mut said).unwrap();
        (self.0.wait().unwrap().code(), said)
    }
}

fn soon<T>(mut get: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        match get() {
            Some(it) => return it,
            None => assert!(begun.elapsed() < Duration::from_secs(20)),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The answer to a line.
fn ask<S: Read + Write>(mut server: S) -> std::io::Result<u32> {
    server.write_all(b"line\n")?;
    let mut answer = String::new();
    BufReader::new(server).read_line(&mut answer)?;
    answer
        .trim()
        .parse()
        .map_err(|_| ErrorKind::UnexpectedEof.into())
}

/// A port that one test looks for is open for a moment, and a child that the other one makes just then has it until it
/// executes its program: somebody would connect to that.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_server_listens_again_after_the_death_of_all() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::new("listens");
    let mut keeper = server.start();
    let mut count = 0;
    for _ in 0..4 {
        let kept = server.connect();
        for _ in 0..3 {
            count += 1;
            assert_eq!(ask(&kept).unwrap(), count);
        }
        assert_eq!(ask(server.connect_by_path()).unwrap(), count + 1);
        count += 1;
        server.kill_all(keeper);
        keeper = server.start();
        count += 1;
        assert_eq!(server.answer(), count);
        assert!(ask(&kept).is_err(), "a connection that was cut");
    }
    server.kill_all(keeper);
}

#[test]
fn an_address_that_somebody_else_has_stops_the_recovery_with_a_word() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::new("taken");
    let mut keeper = server.start();
    assert_eq!(ask(server.connect()).unwrap(), 1);
    for round in 0..2 {
        server.kill_all(keeper);
        let here = server.place.0.join("here");
        let (by_path, by_port);
        let address = match round {
            0 => {
                by_port = soon(|| TcpListener::bind(("127.0.0.1", server.port)).ok());
                by_path = None;
                format!("at port {}", server.port)
            }
            _ => {
                fs::remove_file(&here).unwrap();
                by_path = Some(UnixListener::bind(&here).unwrap());
                by_port = TcpListener::bind("127.0.0.1:0").unwrap();
                "at here".to_owned()
            }
        };
        let (status, said) = server.start().ended();
        assert_eq!(status, Some(125), "{said}");
        let word = format!("bind a socket {address}: somebody else has the address now");
        assert!(said.contains(&word), "{said}");
        drop((by_path, by_port));
        keeper = server.start();
        assert_eq!(server.answer(), round + 2);
    }
    server.kill_all(keeper);
}
