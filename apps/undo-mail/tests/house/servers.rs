//! The real servers behind the proxy: the own store, an unmodified Dovecot, and Dovecot behind an
//! unmodified Postfix. Each is private to its test.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{free_port, until};

/// The user that owns Dovecot's mail: `mail` of Debian.
const MAIL: (u32, u32) = (8, 8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `mailstore`, started and stopped by the proxy.
    Own,
    /// Dovecot, which takes mail by LMTP.
    Dovecot,
    /// Dovecot, to which Postfix gives mail that it takes by SMTP.
    Postfix,
}

impl Kind {
    /// Whether it can be started here; else says why not.
    pub fn is_there(self) -> bool {
        let root = || std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
        let (needs, there) = match self {
            Kind::Own => return true,
            Kind::Dovecot => (
                "dovecot-imapd and dovecot-lmtpd",
                Path::new("/usr/lib/dovecot/lmtp").exists(),
            ),
            Kind::Postfix => (
                "dovecot-imapd, dovecot-lmtpd and postfix",
                Path::new("/usr/lib/dovecot/lmtp").exists()
                    && Path::new("/usr/sbin/postfix").exists(),
            ),
        };
        if !there || !root() {
            println!("skipped: this test needs root and Debian's {needs}");
        }
        there && root()
    }
}

/// A real server. It ends with its value.
pub struct Servers {
    pub kind: Kind,
    folder: PathBuf,
    live: PathBuf,
    pub imap: u16,
    /// Where mail goes in: LMTP, or Postfix's SMTP.
    pub mail: u16,
    lmtp: u16,
    /// Between a folder and one below it; the own store has no other one.
    pub separator: char,
    dovecot: Option<Child>,
}

impl Servers {
    /// Writes all settings below `folder`, and starts what the proxy does not start.
    pub fn start(kind: Kind, folder: &Path, live: &Path, users: &[&str]) -> Servers {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::create_dir_all(live.join("mail")).unwrap();
        let lmtp = free_port();
        let mut servers = Servers {
            kind,
            folder: folder.to_owned(),
            live: live.to_owned(),
            imap: free_port(),
            mail: if kind == Kind::Postfix {
                free_port()
            } else {
                lmtp
            },
            lmtp,
            separator: '.',
            dovecot: None,
        };
        servers.write(users);
        match kind {
            Kind::Own => {}
            Kind::Dovecot => servers.start_dovecot(),
            Kind::Postfix => {
                servers.start_dovecot();
                servers.start_postfix();
            }
        }
        servers
    }

    /// What the proxy is told to start: a script, so that a repair can put another server in it.
    pub fn command(&self) -> Option<String> {
        (self.kind == Kind::Own).then(|| {
            self.run(Kind::Own);
            format!(
                "env UNDO_SYNC=$UNDO_SYNC sh {}",
                self.folder.join("serve").display()
            )
        })
    }

    fn run(&self, kind: Kind) {
        let folder = self.folder.display();
        let program = mailstore();
        let line = match kind {
            Kind::Own => format!(
                "exec env MAILSTORE_SYNC=$UNDO_SYNC {} --settings {folder}/mailstore.toml",
                program.display()
            ),
            _ => format!("exec /usr/sbin/dovecot -F -c {folder}/dovecot.conf 2>/dev/null"),
        };
        std::fs::write(self.folder.join("serve"), line).unwrap();
    }

    /// Puts another server in the place of the one that the proxy starts, over the same files and
    /// ports. It must be stopped, and is what the proxy starts next.
    pub fn replace_by(&mut self, kind: Kind, users: &[&str]) {
        self.kind = kind;
        self.write(users);
        let owner = if kind == Kind::Own {
            "root:root"
        } else {
            "mail:mail"
        };
        let mut chown = Command::new("chown");
        let done = chown
            .args(["-R", owner])
            .arg(self.live.join("mail"))
            .status();
        assert!(done.unwrap().success());
        self.run(kind);
    }

    /// From now on these are the users. The own store learns it at its next start.
    pub fn set_users(&self, users: &[&str]) {
        if self.kind != Kind::Own {
            // Dovecot looks at the time of the file, in seconds.
            std::thread::sleep(Duration::from_millis(1100));
        }
        self.write(users);
    }

    fn write(&self, users: &[&str]) {
        let file = |name: &str, text: &str| std::fs::write(self.folder.join(name), text).unwrap();
        if self.kind == Kind::Own {
            let accounts: String = users
                .iter()
                .map(|user| {
                    let hash = hash(&format!("pw-{user}"));
                    format!("[[account]]\naddress = \"{user}@here.test\"\npassword = \"{hash}\"\n")
                })
                .collect();
            let (live, lmtp, imap) = (self.live.display(), self.lmtp, self.imap);
            let master = hash("secret");
            return file(
                "mailstore.toml",
                &format!(
                    "hostname = \"here.test\"\ndata = \"{live}\"\n[listen]\n\
                     lmtp = [\"127.0.0.1:{lmtp}\"]\nimap = [\"127.0.0.1:{imap}\"]\n\
                     [[domain]]\nname = \"here.test\"\n\
                     [master]\nname = \"proxy\"\npassword = \"{master}\"\n{accounts}"
                ),
            );
        }
        let lines: String = users
            .iter()
            .map(|user| format!("{user}:{{PLAIN}}pw-{user}::::::\n"))
            .collect();
        file("users", &lines);
        file("master", "proxy:{PLAIN}secret\n");
        file("dovecot.conf", &self.dovecot_conf());
    }

    fn dovecot_conf(&self) -> String {
        // Those that the own store makes for a new user: who has seen them must find them again.
        let folders: String = ["Archive", "Drafts", "Junk", "Sent", "Trash"]
            .iter()
            .map(|name| format!("  mailbox {name} {{\n    auto = create\n  }}\n"))
            .collect();
        let (folder, live) = (self.folder.display(), self.live.display());
        let (imap, lmtp, separator) = (self.imap, self.lmtp, self.separator);
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
mail_location = maildir:{live}/mail/%n@here.test
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
  separator = {separator}
{folders}}}
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

    /// What Dovecot has complained of.
    pub fn complaints(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let wrong = ["Warning", "Error", "Fatal", "Panic"];
        let lines = log.lines().filter(|l| wrong.iter().any(|w| l.contains(w)));
        lines.map(str::to_owned).collect()
    }

    fn start_dovecot(&mut self) {
        chown(self.live.join("mail"), Some(MAIL.0), Some(MAIL.1)).unwrap();
        let child = Command::new("/usr/sbin/dovecot")
            .args(["-F", "-c"])
            .arg(self.folder.join("dovecot.conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.dovecot = Some(child);
        let end = Instant::now() + Duration::from_secs(20);
        while !answers(self.imap) || !answers(self.lmtp) {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "Dovecot does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn start_postfix(&self) {
        let folder = self.folder.join("postfix");
        let data = folder.join("data");
        std::fs::create_dir_all(folder.join("spool")).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let owner = Command::new("chown").arg("postfix").arg(&data).status();
        assert!(owner.unwrap().success());
        std::fs::write(folder.join("main.cf"), main_cf(&folder, self.lmtp)).unwrap();
        std::fs::write(folder.join("master.cf"), master_cf(self.mail)).unwrap();
        let output = self.postfix("start");
        assert!(
            output.status.success(),
            "Postfix does not start: {output:?}"
        );
        until("Postfix answers", || answers(self.mail));
    }

    /// What must be done before a snapshot, and before and after a rewind. A snapshot must have all
    /// that was accepted before it, for a replay from there will not bring it. And what Postfix still
    /// has in its queue at a rewind would come into a state in which it has not been sent yet, and
    /// come again with the replay.
    pub fn postfix_hooks(&self) -> (String, String, String) {
        let folder = self.folder.join("postfix");
        let folder = folder.display();
        (
            format!(
                "cd {folder}/spool && timeout 30 sh -c \
                 'while find incoming active maildrop -type f | grep -q .; do sleep 0.02; done'"
            ),
            format!(
                "postfix -c {folder} stop && cd {folder}/spool && \
                 find incoming active deferred maildrop bounce defer -type f -delete"
            ),
            format!("postfix -c {folder} start"),
        )
    }

    fn postfix(&self, word: &str) -> std::process::Output {
        let folder = self.folder.join("postfix");
        Command::new("/usr/sbin/postfix")
            .arg("-c")
            .arg(folder)
            .arg(word)
            .output()
            .unwrap()
    }

    /// Waits until Postfix has handed on all that it has taken.
    pub fn drain(&self) {
        if self.kind != Kind::Postfix {
            return;
        }
        until("Postfix's queue is empty", || {
            ["incoming", "active", "deferred", "maildrop"]
                .iter()
                .all(|queue| {
                    let place = self.folder.join("postfix/spool").join(queue);
                    let found = Command::new("find")
                        .arg(place)
                        .args(["-type", "f"])
                        .output();
                    found.unwrap().stdout.is_empty()
                })
        });
    }

    /// From its next session on each user may have so many KiB.
    pub fn set_quota(&self, kib: u64) {
        let name = match self.kind {
            Kind::Own => "mailstore.toml",
            _ => "dovecot.conf",
        };
        let path = self.folder.join(name);
        let mut text = std::fs::read_to_string(&path).unwrap();
        if self.kind == Kind::Own {
            text = text.replace(
                "[[account]]\n",
                &format!("[[account]]\nquota = \"{kib}K\"\n"),
            );
        } else {
            text += &format!(
                "mail_plugins = quota\nplugin {{\n  quota = count:all\n  quota_vsizes = yes\n  \
                 quota_rule = *:storage={kib}K\n  quota_grace = 0\n}}\n"
            );
        }
        std::fs::write(path, text).unwrap();
        if let Some(dovecot) = &self.dovecot {
            let mut kill = Command::new("kill");
            let told = kill.args(["-HUP", &dovecot.id().to_string()]).status();
            assert!(told.unwrap().success());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Kills the own store, or all processes of Dovecot that have a session, with -9, and waits for
    /// their ends: until then they have their ports, and reset who comes.
    pub fn kill(&self, home: &Path) {
        let pids = match &self.dovecot {
            None => {
                let text = std::fs::read_to_string(home.join("server.pid")).unwrap_or_default();
                let pid = text.split_whitespace().next();
                pid.into_iter().map(str::to_owned).collect::<Vec<_>>()
            }
            Some(dovecot) => {
                let mut find = Command::new("pgrep");
                find.args(["-P", &dovecot.id().to_string(), "-x", "imap|lmtp"]);
                let found = String::from_utf8(find.output().unwrap().stdout).unwrap();
                found.lines().map(str::to_owned).collect()
            }
        };
        // (Some may have ended by themselves.)
        let _ = Command::new("kill").arg("-9").args(&pids).output();
        until("who was killed has ended", || {
            // (The first thread may have ended before the others.)
            let ended = |pid: &String| {
                let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                threads.map_or(0, Iterator::count) < 2
                    && stat.map_or(true, |stat| stat.contains(") Z "))
            };
            pids.iter().all(ended)
        });
    }

    pub fn stop(&mut self) {
        if self.kind == Kind::Postfix {
            self.postfix("stop");
        }
        if let Some(mut dovecot) = self.dovecot.take() {
            let _ = Command::new("kill").arg(dovecot.id().to_string()).status();
            let _ = dovecot.wait();
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The program of the own store. `cargo test` of the workspace has built it; for one of this package
/// alone it is built if it is missing.
pub fn mailstore() -> PathBuf {
    static BUILT: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_BIN_EXE_undo-mail")).parent().unwrap();
    let program = folder.join("mailstore");
    BUILT.call_once(|| {
        if program.exists() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "mailstore"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.unwrap().success(), "mailstore is built");
    });
    program
}

fn hash(password: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(mailstore())
        .arg("password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{password}").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn main_cf(folder: &Path, lmtp: u16) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = here.localdomain
mydestination =
virtual_mailbox_domains = here.test
virtual_mailbox_maps = static:x
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_peername_lookup = no
in_flow_delay = 0
minimal_backoff_time = 1s
queue_run_delay = 1s
"
    )
}

fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
error     unix  - - n - - error
retry     unix  - - n - - error
lmtp      unix  - - n - - lmtp
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"
    )
}
