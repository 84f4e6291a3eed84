//! An unmodified Dovecot of its own, a proxy in front of it, and clients.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use undo_mail::proxy::{Proxy, prepare};
use undo_mail::settings::Settings;

pub const USERS: [&str; 5] = ["ann", "ben", "cid", "dan", "eve"];

/// The user that owns the mail: `mail` of Debian.
const MAIL: (u32, u32) = (8, 8);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A Dovecot that nobody else uses, or `None` where there is none or it cannot be started.
pub struct Dovecot {
    child: Child,
    folder: PathBuf,
    pub imap: u16,
    pub lmtp: u16,
}

impl Dovecot {
    pub fn is_there() -> bool {
        Path::new("/usr/sbin/dovecot").exists() && nobody_else()
    }

    pub fn start(folder: &Path, live: &Path, users: &[&str]) -> Dovecot {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::create_dir_all(live.join("mail")).unwrap();
        chown(live.join("mail"), Some(MAIL.0), Some(MAIL.1)).unwrap();
        let (imap, lmtp) = (free_port(), free_port());
        let conf = configuration(folder, live, imap, lmtp);
        std::fs::write(folder.join("dovecot.conf"), conf).unwrap();
        std::fs::write(folder.join("master"), "proxy:{PLAIN}secret\n").unwrap();
        set_users(folder, users);
        let child = Command::new("/usr/sbin/dovecot")
            .args(["-F", "-c"])
            .arg(folder.join("dovecot.conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let dovecot = Dovecot {
            child,
            folder: folder.to_owned(),
            imap,
            lmtp,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", imap)).is_err()
            || TcpStream::connect(("127.0.0.1", lmtp)).is_err()
        {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "Dovecot does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        dovecot
    }

    /// (Dovecot looks at the time of the file, in seconds.)
    pub fn set_users(&self, users: &[&str]) {
        std::thread::sleep(Duration::from_millis(1100));
        set_users(&self.folder, users);
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let _ = self.child.wait();
    }
}

fn nobody_else() -> bool {
    // Dovecot wants to be root.
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

fn set_users(folder: &Path, users: &[&str]) {
    let lines: String = users
        .iter()
        .map(|user| format!("{user}:{{PLAIN}}pw-{user}::::::\n"))
        .collect();
    std::fs::write(folder.join("users"), lines).unwrap();
}

fn configuration(folder: &Path, live: &Path, imap: u16, lmtp: u16) -> String {
    let (folder, live) = (folder.display(), live.display());
    format!(
        "protocols = imap lmtp
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_master_user_separator = *
auth_username_format = %Ln
auth_cache_size = 0
auth_failure_delay = 0
mail_location = maildir:{live}/mail/%n
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
mail_max_userip_connections = 0
passdb {{
  driver = passwd-file
  master = yes
  args = {folder}/master
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  service_count = 0
  process_limit = 4
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service imap {{
  process_limit = 1000
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
"
    )
}

pub struct House {
    pub proxy: Proxy,
    pub dovecot: Dovecot,
    pub settings: Settings,
    mount: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl House {
    /// `None`, and a word about it, where a house cannot be built.
    pub fn new(storage: &str, set: impl FnOnce(&mut Settings)) -> Option<House> {
        if !Dovecot::is_there() {
            println!("skipped: this test needs root and Debian's dovecot-imapd and dovecot-lmtpd");
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
                .set_len(512 << 20)
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
        let dovecot = Dovecot::start(&folder.path().join("dovecot"), &live, &USERS);
        settings.smtp.server = format!("127.0.0.1:{}", dovecot.lmtp);
        settings.imap.server = format!("127.0.0.1:{}", dovecot.imap);
        let proxy = Proxy::start(settings.clone(), prepared).unwrap();
        Some(House {
            proxy,
            dovecot,
            settings,
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
        assert!(self.proxy.manager.drain(Duration::from_secs(30)));
    }

    /// What every user has, as the real server tells it: folder, subject, text and flags.
    pub fn mailboxes(&self) -> BTreeMap<String, Vec<String>> {
        self.mailboxes_of(&USERS)
    }

    pub fn mailboxes_of(&self, users: &[&str]) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::new();
        for user in users {
            let mut client = Imap::login(self.dovecot.imap, user);
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

    pub fn last(&self) -> u64 {
        self.proxy.manager.timeline().last()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.proxy.manager.close();
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
            .filter_map(|line| {
                line.rsplit_once(" \"/\" ")
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
