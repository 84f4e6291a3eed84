//! A mail server of its own, a proxy in front of it, and clients.
#![allow(dead_code)]

pub mod servers;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use undo_mail::proxy::{Proxy, prepare};
use undo_mail::settings::Settings;

use servers::{Kind, Servers};

pub const USERS: [&str; 5] = ["ann", "ben", "cid", "dan", "eve"];

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub struct House {
    pub proxy: Proxy,
    pub servers: Servers,
    pub settings: Settings,
    pub users: Vec<String>,
    mount: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl House {
    /// `None`, and a word about it, where a house cannot be built.
    pub fn new(kind: Kind, storage: &str, set: impl FnOnce(&mut Settings)) -> Option<House> {
        House::of(kind, storage, &USERS, set)
    }

    /// The same, for these users.
    pub fn of(
        kind: Kind,
        storage: &str,
        users: &[&str],
        set: impl FnOnce(&mut Settings),
    ) -> Option<House> {
        if !kind.is_there() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // The mail is not root's: its owner must get through.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut mount = None;
        let mut home = folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        if storage == "btrfs" {
            let image = folder.path().join("image");
            std::fs::File::create(&image)
                .unwrap()
                .set_len(4 << 30)
                .unwrap();
            let run = |c: &mut Command| c.output().is_ok_and(|o| o.status.success());
            if !run(Command::new("mkfs.btrfs").arg("-q").arg(&image))
                || !run(Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&image)
                    .arg(&home))
            {
                println!("skipped: a btrfs cannot be mounted here");
                return None;
            }
            mount = Some(home.clone());
            home = home.join("undo");
            std::fs::create_dir(&home).unwrap();
        }
        let live = home.join("live");
        let mut settings: Settings = serde_json::from_value(serde_json::json!({
            "home": home, "storage": storage, "retry_every_s": 0.2, "granularities": [],
            "smtp": { "listen": "127.0.0.1:0", "server": "", "lmtp": true, "domains": ["here.test"] },
            "imap": { "listen": "127.0.0.1:0", "server": "", "master_name": "{user}*proxy",
                      "master_password": "secret" },
        }))
        .unwrap();
        set(&mut settings);
        let Ok(prepared) = prepare(&settings) else {
            println!("skipped: {storage} does not work here");
            return None;
        };
        std::fs::set_permissions(&live, PermissionsExt::from_mode(0o755)).unwrap();
        let servers = Servers::start(kind, &folder.path().join("servers"), &live, users);
        use_servers(&mut settings, &servers);
        let proxy = Proxy::start(settings.clone(), prepared).unwrap();
        Some(House {
            proxy,
            servers,
            settings,
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            mount,
            _folder: folder,
        })
    }

    pub fn imap(&self, user: &str) -> Imap {
        Imap::login(self.proxy.imap.port(), user)
    }

    /// Sends mail and waits until the real server has it.
    pub fn mail(&self, from: &str, to: &str, subject: &str, body: &str) {
        let message =
            format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\r\n{body}\r\n");
        let reply = send(self.proxy.smtp.port(), from, to, &message);
        assert!(reply.starts_with("250"), "{reply}");
    }

    pub fn drain(&self) {
        assert!(self.proxy.manager.drain(Duration::from_secs(120)));
        self.servers.drain();
    }

    /// What every user has, as the real server tells it: folder, subject, text and flags.
    pub fn mailboxes(&self) -> BTreeMap<String, Vec<String>> {
        let users: Vec<&str> = self.users.iter().map(String::as_str).collect();
        self.mailboxes_of(&users)
    }

    pub fn mailboxes_of(&self, users: &[&str]) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::new();
        for user in users {
            let mut client = Imap::login(self.servers.imap, user);
            for folder in client.folders() {
                let mut messages = Vec::new();
                let count = client.examine(&folder);
                if count > 0 {
                    let answer = client.must("FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT X-UNDO-ID)] BODY.PEEK[TEXT])");
                    let answer = answer
                        .trim_end()
                        .rsplit_once("\r\n")
                        .map_or("", |(all, _)| all);
                    for part in answer.split("\r\n* ") {
                        let start = part.find("FLAGS").unwrap_or(0);
                        messages.push(
                            part[start..]
                                .trim_end()
                                .replace("\r\n", "|")
                                .replace(" \\Recent", "")
                                .replace("\\Recent ", "")
                                .replace("\\Recent", ""),
                        );
                    }
                }
                messages.sort();
                all.insert(format!("{user}/{folder}"), messages);
            }
        }
        all
    }

    /// From now on these are the users of the real server.
    pub fn set_users(&self, users: &[&str]) {
        self.servers.set_users(users);
        self.proxy.manager.service().restart_server().unwrap();
    }

    pub fn last(&self) -> u64 {
        self.proxy.manager.timeline().last()
    }
}

/// Settings that go with these servers.
pub fn use_servers(settings: &mut Settings, servers: &Servers) {
    settings.smtp.server = format!("127.0.0.1:{}", servers.mail);
    settings.smtp.lmtp = servers.kind != Kind::Postfix;
    settings.imap.server = format!("127.0.0.1:{}", servers.imap);
    settings.imap.mail_of_user = "mail/{user}@here.test".into();
    settings.server = servers.command();
    if servers.kind == Kind::Postfix {
        let (drain, stop, start) = servers.postfix_hooks();
        settings.hooks.before_snapshot = Some(drain);
        settings.hooks.before_rewind = Some(stop);
        settings.hooks.after_rewind = Some(start);
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.proxy.manager.close();
        self.proxy.manager.service().stop_server();
        if let Some(mount) = &self.mount {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}

/// Sends a message and returns the answer to its end.
pub fn send(port: u16, from: &str, to: &str, message: &str) -> String {
    let mut smtp = Smtp::connect(port);
    smtp.ask("EHLO test");
    smtp.ask(&format!("MAIL FROM:<{from}>"));
    let reply = smtp.ask(&format!("RCPT TO:<{to}>"));
    if !reply.starts_with("250") {
        return reply;
    }
    smtp.ask("DATA");
    let stuffed = message.replace("\r\n.", "\r\n..");
    smtp.ask(&format!("{stuffed}."))
}

pub struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    pub fn connect(port: u16) -> Smtp {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // A command is written in pieces: each but the first would wait for an acknowledgement.
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut smtp = Smtp {
            stream: BufReader::new(stream),
        };
        assert!(smtp.reply().starts_with("220"));
        smtp
    }

    pub fn ask(&mut self, line: &str) -> String {
        write!(self.stream.get_mut(), "{line}\r\n").unwrap();
        self.reply()
    }

    pub fn reply(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                return all;
            }
            all += &line;
            if line.as_bytes().get(3) != Some(&b'-') {
                return all;
            }
        }
    }
}

pub struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl Imap {
    pub fn connect(port: u16) -> Imap {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // A command is written in pieces: each but the first would wait for an acknowledgement.
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut imap = Imap {
            stream: BufReader::new(stream),
            tag: 0,
        };
        imap.line();
        imap
    }

    pub fn login(port: u16, user: &str) -> Imap {
        let mut imap = Imap::connect(port);
        imap.must(&format!("LOGIN {user} pw-{user}"));
        imap
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(!line.is_empty(), "the server has hung up");
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Everything up to the tagged response, inclusive.
    pub fn ask(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        write!(self.stream.get_mut(), "{tag} {command}\r\n").unwrap();
        let mut all = String::new();
        loop {
            let line = self.line();
            let last = line.starts_with(&format!("{tag} "));
            // A literal may hold lines that look like anything.
            let literal = line
                .trim_end()
                .strip_suffix('}')
                .and_then(|l| l.rsplit_once('{'))
                .and_then(|(_, n)| n.parse::<usize>().ok());
            all += &line;
            if let Some(length) = literal {
                let mut bytes = vec![0; length];
                self.stream.read_exact(&mut bytes).unwrap();
                all += &String::from_utf8_lossy(&bytes);
            }
            if last {
                return all;
            }
        }
    }

    /// Idles for so many milliseconds.
    pub fn ask_idle(&mut self, ms: u64) -> String {
        let mut stream = self.stream.get_ref().try_clone().unwrap();
        let done = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            stream.write_all(b"DONE\r\n").unwrap();
        });
        let answer = self.ask("IDLE");
        done.join().unwrap();
        answer
    }

    pub fn must(&mut self, command: &str) -> String {
        let answer = self.ask(command);
        let last = answer.lines().last().unwrap_or_default().to_owned();
        assert!(last.split(' ').nth(1) == Some("OK"), "{command}: {answer}");
        answer
    }

    pub fn append(&mut self, folder: &str, message: &str) -> String {
        self.must(&format!(
            "APPEND {folder} (\\Flagged) {{{}+}}\r\n{message}",
            message.len()
        ))
    }

    pub fn folders(&mut self) -> Vec<String> {
        let answer = self.must("LIST \"\" \"*\"");
        let mut names: Vec<String> = answer
            .lines()
            .filter(|line| line.starts_with("* LIST"))
            .filter(|line| {
                !["\\Noselect", "\\NonExistent"]
                    .iter()
                    .any(|no| line.contains(no))
            })
            .filter_map(|line| {
                line.rsplit_once(" \".\" ")
                    .map(|(_, name)| name.trim().trim_matches('"').to_owned())
            })
            .collect();
        names.sort();
        names
    }

    /// How many messages there are.
    pub fn examine(&mut self, folder: &str) -> u32 {
        exists(&self.must(&format!("EXAMINE \"{folder}\"")))
    }

    pub fn select(&mut self, folder: &str) -> u32 {
        exists(&self.must(&format!("SELECT \"{folder}\"")))
    }

    /// The subjects of the selected folder, in order.
    pub fn subjects(&mut self) -> Vec<String> {
        let answer = self.ask("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])");
        answer
            .lines()
            .filter_map(|line| line.strip_prefix("Subject: ").map(str::to_owned))
            .collect()
    }
}

fn exists(answer: &str) -> u32 {
    let line = answer
        .lines()
        .find(|line| line.ends_with("EXISTS"))
        .unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Makes of functions that take a [`Kind`] a test for each kind of server.
#[macro_export]
macro_rules! on_each_server {
    ($($name:ident),* $(,)?) => {
        mod own {
            $(#[test]
            fn $name() {
                super::$name($crate::house::servers::Kind::Own);
            })*
        }
        mod dovecot {
            $(#[test]
            fn $name() {
                super::$name($crate::house::servers::Kind::Dovecot);
            })*
        }
    };
}

pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(
            Instant::now() < end,
            "this has not come true in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
