//! A service whose client never learns that it was killed: redis-server with its threads, over a live TCP connection, with
//! its data in memory or in a file as well.

mod place;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

const ROUNDS: usize = 600;
const KILL_EVERY: usize = 10;

const KEEPS_THE_TIME: &str =
    r#"EVAL "redis.call('SET', 'time', redis.call('TIME')[2]) return redis.call('GET', 'time')" 0"#;

/// The server and its checker are one file, which looks at its name.
const BINARY: &str = "/usr/bin/redis-check-rdb";

struct Client {
    connection: BufReader<TcpStream>,
}

impl Client {
    /// Waits until the server listens.
    fn connect(port: u16) -> Client {
        let begun = Instant::now();
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                let patience = Some(Duration::from_secs(30));
                stream.set_read_timeout(patience).unwrap();
                return Client {
                    connection: BufReader::new(stream),
                };
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no server");
            sleep(Duration::from_millis(20));
        }
    }

    /// Sends a command, waits for the answer's line; of a string, for its own.
    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.answer(command)
    }

    fn send(&mut self, command: &str) {
        let line = format!("{command}\r\n");
        self.connection
            .get_mut()
            .write_all(line.as_bytes())
            .unwrap();
    }

    fn answer(&mut self, command: &str) -> String {
        let answer = self.line(command);
        match answer.starts_with('$') {
            true => self.line(command),
            false => answer,
        }
    }

    fn line(&mut self, command: &str) -> String {
        let mut line = String::new();
        let read = self.connection.read_line(&mut line);
        assert!(read.is_ok_and(|len| len > 0), "{command}: no answer");
        line.trim_end().to_owned()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn words(port: u16, keeps: &str) -> Vec<String> {
    let fixed = "./redis-server --bind 127.0.0.1 --save --port";
    let mut words: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    words.insert(4, String::new());
    words.extend([port.to_string(), "--appendonly".into(), keeps.into()]);
    words
}

fn serve(mut command: Command, place: &Place) -> Child {
    let log = File::create(place.0.join("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn answers_through_kills(name: &str, options: &[&str], keeps: &str) {
    let place = Place::new(name);
    symlink(BINARY, place.0.join("redis-server")).unwrap();
    let port = free_port();
    let program = words(port, keeps);
    let mut line = vec!["run", "--fresh", "--name", "t"];
    line.extend(options);
    line.push("--");
    line.extend(program.iter().map(String::as_str));
    let mut server = serve(place.dcrun(&line), &place);
    let mut client = Client::connect(port);
    let mut kills = 0;
    for round in 1..=ROUNDS {
        let worker = (round % KILL_EVERY == 0).then(|| place.worker()).flatten();
        client.send("INCR counter");
        if let Some(worker) = worker {
            // Before, while and after it answers.
            sleep(Duration::from_micros(37 * round as u64 % 500));
            kills += usize::from(place::kills(worker));
        }
        assert_eq!(client.answer("INCR counter"), format!(":{round}"));
        assert_eq!(
            client.ask(&format!("RPUSH list {round}")),
            format!(":{round}")
        );
        // What it answers by the clock it keeps.
        let worker = (round % KILL_EVERY == 5).then(|| place.worker()).flatten();
        let said = client.ask(KEEPS_THE_TIME);
        kills += usize::from(worker.is_some_and(place::kills));
        assert_eq!(client.ask("GET time"), said);
    }
    assert!(kills >= ROUNDS / KILL_EVERY, "{name}: {kills} kills");
    client
        .connection
        .get_mut()
        .write_all(b"SHUTDOWN\r\n")
        .unwrap();
    let status = server.wait().unwrap();
    assert!(status.success(), "{name}: {status}");
    let _ = client.connection.get_ref().shutdown(Shutdown::Both);
    if keeps == "yes" {
        is_on_disk(&place);
    }
}

/// Without dcrun another server finds all of it.
fn is_on_disk(place: &Place) {
    let port = free_port();
    let program = words(port, "yes");
    let mut native = Command::new(&program[0]);
    native.args(&program[1..]).current_dir(&place.0);
    let mut server = serve(native, place);
    let mut client = Client::connect(port);
    assert_eq!(client.ask("GET counter"), ROUNDS.to_string());
    assert_eq!(client.ask("LLEN list"), format!(":{ROUNDS}"));
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn redis_in_memory_answers_through_kills() {
    answers_through_kills("service", &[], "no");
}

#[test]
fn redis_in_memory_answers_through_kills_under_a_log() {
    answers_through_kills("service-log", &["--protocol", "cbndvs-log"], "no");
}

#[test]
fn redis_in_memory_answers_through_kills_under_auto() {
    answers_through_kills("service-auto", &["--protocol", "auto"], "no");
}

#[test]
fn redis_with_a_file_answers_through_kills() {
    answers_through_kills("service-file", &[], "yes");
}
