//! The file of settings of the proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use undo::snapshots::Granularity;
use undo::{Error, Result};

use crate::imap::pool::Login;

/// What can be set. Everything but the addresses has a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The folder of the timeline, of the snapshots, and of `live`, the state that travels. The
    /// mail server must keep its mail below `live/mail`.
    pub home: PathBuf,
    /// `auto`, `btrfs`, `overlay` or `copies`.
    #[serde(default = "auto")]
    pub storage: String,
    /// The name of this host, in greetings and in what is sent.
    #[serde(default = "localhost")]
    pub hostname: String,
    /// A command that serves in the foreground: the proxy starts the real server, stops it while
    /// the state is exchanged, and starts it again when it dies. Without it, somebody else does.
    /// If `$UNDO_SYNC` occurs in it, it is also started anew for a replay and after it. It is `no`
    /// during a replay, when nothing need be synced: the proxy syncs all of it at the end.
    #[serde(default)]
    pub server: Option<String>,
    pub smtp: Smtp,
    pub imap: Imap,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default = "undo::snapshots::default_granularities")]
    pub granularities: Vec<Granularity>,
    #[serde(default = "sixteen")]
    pub replay_workers: usize,
    #[serde(default = "five_minutes")]
    pub retry_every_s: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Where the proxy listens, HOST:PORT.
    pub listen: String,
    /// The real server, HOST:PORT.
    pub server: String,
    /// The real server speaks LMTP: a success means that the mail is in the mailbox.
    #[serde(default)]
    pub lmtp: bool,
    /// Where mail for others is sent, HOST:PORT; by default to the real server.
    #[serde(default)]
    pub outbound: Option<String>,
    /// Mail for other domains is refused. Empty: the real server is asked who is a relay.
    #[serde(default)]
    pub domains: Vec<String>,
    #[serde(default = "fifty_megabytes")]
    pub longest_message: usize,
    /// How long a failed delivery is tried, and can be repaired, before its sender is told for
    /// good. The paper has 4 hours.
    #[serde(default = "four_hours")]
    pub window_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imap {
    pub listen: String,
    pub server: String,
    /// A name that the real server lets in as any user; `{user}` stands for that user.
    pub master_name: String,
    pub master_password: String,
    /// How a recipient's address becomes the name of a user: `local` (what is before the @) or
    /// `address`. Only used to find out whether a delivery that was cut short did happen.
    #[serde(default = "local")]
    pub user_of: String,
    /// The paths of a user's mail below `live`; `{user}` stands for the user. For undo by user.
    #[serde(default = "mail_of_user")]
    pub mail_of_user: String,
    /// How long a replay waits for mail that the real server has accepted but not stored yet, where
    /// that is no LMTP server.
    #[serde(default = "ten_seconds")]
    pub arrival_patience_s: f64,
}

/// Commands (for `sh -c`) around snapshots and rewinds, for servers that need it. `UNDO_LIVE` is the
/// folder of the live state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    pub before_snapshot: Option<String>,
    pub after_snapshot: Option<String>,
    pub before_rewind: Option<String>,
    pub after_rewind: Option<String>,
}

fn auto() -> String {
    "auto".into()
}
fn localhost() -> String {
    "localhost".into()
}
fn sixteen() -> usize {
    16
}
fn ten_seconds() -> f64 {
    10.0
}
fn five_minutes() -> f64 {
    300.0
}
fn fifty_megabytes() -> usize {
    50 << 20
}
fn four_hours() -> u64 {
    4 * 3600
}
fn local() -> String {
    "local".into()
}
fn mail_of_user() -> String {
    "mail/{user}".into()
}

impl Settings {
    pub fn read(path: &Path) -> Result<Settings> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::new(path.display(), "read the settings", e))?;
        let settings: Settings = toml::from_str(&text).map_err(|e| {
            Error::new(path.display(), "read the settings", e.to_string().trim())
                .advise("`undo-mail --example` prints a file with all of them")
        })?;
        let wrong = |what: &str| Err(Error::new(path.display(), "read the settings", what));
        if !settings.imap.master_name.contains("{user}") {
            return wrong("imap.master_name must have {user} in it, as in \"{user}*proxy\"");
        }
        if !["local", "address"].contains(&settings.imap.user_of.as_str()) {
            return wrong("imap.user_of is \"local\" or \"address\"");
        }
        Ok(settings)
    }

    pub fn login(&self) -> Login {
        Login {
            address: self.imap.server.clone(),
            name: self.imap.master_name.clone(),
            password: self.imap.master_password.clone(),
            patience: Duration::from_secs(120),
        }
    }

    /// The user to whom mail for this address goes, if no alias says otherwise.
    pub fn user_of(&self, address: &str) -> String {
        match self.imap.user_of.as_str() {
            "local" => address.split('@').next().unwrap_or(address).to_lowercase(),
            _ => address.to_lowercase(),
        }
    }
}

/// A file of settings that works with Dovecot.
pub const EXAMPLE: &str = r#"# Settings of undo-mail. Those that are commented out have these values.
home = "/srv/undo"              # timeline, snapshots, and live/mail, where the server keeps its mail
# server = "env MAILSTORE_SYNC=$UNDO_SYNC mailstore --settings /etc/mailstore.toml"   # run by the proxy
# storage = "auto"              # btrfs, overlay, copies
# hostname = "localhost"
# replay_workers = 16
# retry_every_s = 300.0
# granularities = [{ every_s = 600, keep = 18 }, { every_s = 3600, keep = 24 }]

[smtp]
listen = "127.0.0.1:2525"
server = "127.0.0.1:24"
lmtp = true
# outbound = "127.0.0.1:25"
# domains = ["example.org"]
# longest_message = 52428800    # bytes
# window_s = 14400

[imap]
listen = "127.0.0.1:1143"
server = "127.0.0.1:143"
master_name = "{user}*proxy"    # Dovecot: auth_master_user_separator=*
master_password = "secret"
# user_of = "local"
# mail_of_user = "mail/{user}"
# arrival_patience_s = 10.0     # how long mail may be in the queue of a server without lmtp

[hooks]
# before_rewind = "doveadm stop"
# after_rewind = "dovecot"
"#;
