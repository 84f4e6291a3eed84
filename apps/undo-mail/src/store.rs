//! The mail store as the undo manager sees it: how each verb is carried out on the real server.
//!
//! The same code serves users and replays. A verb names messages and folders by UndoID; here they
//! become what the real server calls them now: [`act`] has the verbs one by one, [`messages`] how
//! messages are found and what is done to them, [`copying`] how they get to other folders.

mod act;
mod copying;
mod messages;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use undo::{Call, Compensation, Context, Error, Mode, Outcome, Pause, Result, Service, Squash};

pub use messages::fetch_messages;

use crate::consistency::{self, Inconsistency};
use crate::factory::Factory;
use crate::imap::copies::Copies;
use crate::imap::pool::{Listing, Pool, Tried, Trouble};
use crate::imap::separator::Separator;
use crate::imap::token::Token;
use crate::imap::turns::Turns;
use crate::names::{self, Message};
use crate::notices;
use crate::scope::Scope;
use crate::server;
use crate::settings::Settings;
use crate::smtp::client::Server;
use crate::verbs::{Act, Verb};

/// What a verb has shown: the record that consistency is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shown {
    /// Nothing but its success.
    Nothing,
    /// For each message that the verb names, in its order, the hash of its text; 0 for none.
    Messages(Vec<u64>),
    /// The hashes of names of folders.
    Folders(Vec<u64>),
}

/// What a client is told. Not recorded.
#[derive(Debug, Default)]
pub struct Answer {
    /// FETCH: what each message has shown.
    pub fetched: Vec<(Message, Vec<(String, Token)>)>,
    /// Untagged responses as the real server gave them, for LIST, STATUS and SELECT.
    pub untagged: Vec<Vec<Token>>,
    pub listing: Listing,
    pub flags: Vec<u8>,
    pub permanent_flags: Vec<u8>,
}

/// How long a server that has died may take to come back, before what was asked of it has failed.
const RETURN: Duration = Duration::from_secs(5);

/// How long one that was stopped may take.
const START: Duration = Duration::from_secs(10);

type Done = std::result::Result<(Shown, Answer), Trouble>;

/// Called with mail that the undo system itself sends.
pub type Outbox = Box<dyn Fn(Verb) -> Result<()> + Send + Sync>;

pub struct MailStore {
    pub settings: Settings,
    pub pool: Pool,
    pub smtp: Server,
    pub outbound: Server,
    pub factory: Factory,
    /// What users were already told in this cycle.
    pub told: Mutex<std::collections::HashSet<(String, u64)>>,
    outbox: OnceLock<Outbox>,
    begun: copying::Begun,
    /// Looks that are no verbs take a turn here.
    pub turns: Turns,
    /// What a replay has given to a server that queues mail, and when: it may be on its way yet.
    queued: Mutex<HashMap<u64, Instant>>,
    /// The real server, if it is ours to start and stop.
    server: OnceLock<server::Server>,
}

impl MailStore {
    pub fn new(settings: Settings, live: &std::path::Path) -> MailStore {
        let smtp = Server::new(
            &settings.smtp.server,
            settings.smtp.lmtp,
            &settings.hostname,
        );
        let outbound = settings
            .smtp
            .outbound
            .as_ref()
            .unwrap_or(&settings.smtp.server);
        let lmtp = settings.smtp.lmtp && settings.smtp.outbound.is_none();
        MailStore {
            outbound: Server::new(outbound, lmtp, &settings.hostname),
            pool: Pool::new(
                settings.login(),
                Copies::open(&live.join("copies")),
                Separator::open(&settings.home),
            ),
            factory: Factory::open(&live.join("factory")),
            smtp,
            told: Mutex::default(),
            outbox: OnceLock::new(),
            begun: copying::Begun::open(&live.join("begun")),
            turns: Turns::default(),
            queued: Mutex::default(),
            server: OnceLock::new(),
            settings,
        }
    }

    /// Starts the real server, if the settings say how.
    pub fn start_server(&self) -> Result<()> {
        if let Some(command) = &self.settings.server {
            let started = server::Server::start(command, &self.settings.home);
            let _ = self.server.set(started.context(command, "start")?);
        }
        Ok(())
    }

    /// Ends the real server, if it is ours.
    pub fn stop_server(&self) {
        if let Some(server) = self.server.get() {
            // Some servers wait for their sessions to end.
            self.forget_sessions();
            server.stop();
        }
    }

    /// Has the real server begin anew, if it is ours: it reads its settings then.
    pub fn restart_server(&self) -> Result<()> {
        self.stop_server();
        let Some(server) = self.server.get() else {
            return Ok(());
        };
        server.go_on();
        self.wait_until_ready(START)
    }

    /// The real server can be told to sync nothing.
    fn can_relax(&self) -> bool {
        let command = self.settings.server.as_ref();
        self.server.get().is_some() && command.is_some_and(|c| c.contains("$UNDO_SYNC"))
    }

    fn forget_sessions(&self) {
        self.pool.forget();
        self.smtp.forget();
    }

    /// Waits until the real server answers.
    pub fn wait_until_ready(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            match self.ready() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Through which door mail of the undo system itself goes: it is a verb like others.
    pub fn set_outbox(&self, outbox: Outbox) {
        let _ = self.outbox.set(outbox);
    }

    /// What stands between a folder and one below it.
    pub fn delimiter(&self, user: &str) -> Tried<String> {
        self.pool.separator(user)
    }

    /// Sends mail of the undo system itself.
    pub fn send(&self, to: &str, body: Vec<u8>) -> Result<()> {
        let domains = &self.settings.smtp.domains;
        let domain = to.rsplit('@').next().unwrap_or_default();
        let ours = domains.is_empty() || domains.iter().any(|d| d.eq_ignore_ascii_case(domain));
        let failed = |e: String| Error::new(format!("notice to {to}"), "send", e);
        if ours && let Some(outbox) = self.outbox.get() {
            // Whoever reads it here may see it rewound: it must be in the timeline.
            let act = Act::Deliver {
                id: names::fresh(),
                from: String::new(),
                to: to.into(),
                body: crate::bytes::Bytes(body),
                options: String::new(),
                window_s: 0,
            };
            return outbox(Verb::new("", act));
        }
        match self.outbound.deliver("", to, "", &body) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reply)) => Err(failed(reply.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn hook(&self, command: &Option<String>) -> Result<()> {
        let Some(command) = command else {
            return Ok(());
        };
        let live = self.settings.home.join("live");
        let output = std::process::Command::new("sh")
            .args(["-c", command])
            .env("UNDO_LIVE", live)
            .stdin(std::process::Stdio::null())
            .output();
        let failed = |cause: String| Err(Error::new(format!("hook {command:?}"), "run", cause));
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => failed(error.to_string()),
        }
    }
}

impl Service for MailStore {
    type Verb = Verb;
    type Tag = Shown;
    type Inconsistency = Inconsistency;
    type Answer = Answer;

    fn execute(&self, call: &Call<'_, Verb>) -> (Outcome<Shown>, Answer) {
        let mut done = self.act(call, call.mode == Mode::Settle);
        if matches!(done, Err(Trouble::Gone(_))) && self.wait_until_ready(RETURN).is_ok() {
            // The server has died and is there again: perhaps it had done it, perhaps half of it.
            done = self.act(call, true);
        }
        match done {
            Ok((shown, answer)) => (Outcome::done(shown), answer),
            Err(trouble) => (Outcome::failed(trouble, Shown::Nothing), Answer::default()),
        }
    }

    fn consistent(
        &self,
        verb: &Verb,
        original: &Outcome<Shown>,
        replayed: &Outcome<Shown>,
    ) -> std::result::Result<(), Inconsistency> {
        consistency::compare(verb, original, replayed)
    }

    fn compensate(
        &self,
        call: &Call<'_, Verb>,
        what: &Inconsistency,
        _replayed: &Outcome<Shown>,
    ) -> Result<Compensation<Shown>> {
        consistency::compensate(self, call, what)
    }

    fn squash(&self, call: &Call<'_, Verb>, because: &[Inconsistency]) -> Squash<Verb> {
        consistency::squash(self, call, because)
    }

    fn report_attempt(&self, call: &Call<'_, Verb>, outcome: &Outcome<Shown>) {
        if let Some((to, body)) = notices::bounce(&self.settings, call.verb, outcome, false) {
            // It is a courtesy; the final one is not.
            let _ = self.send(&to, body);
        }
    }

    fn report_failure(&self, call: &Call<'_, Verb>, outcome: &Outcome<Shown>) -> Result<()> {
        match notices::bounce(&self.settings, call.verb, outcome, true) {
            Some((to, body)) => self.send(&to, body),
            None => Ok(()),
        }
    }

    fn ready(&self) -> Result<()> {
        let failed = |what: &str, address: &str, e: io::Error| {
            Error::new(format!("{what} server {address}"), "connect", e)
                .advise("start it, or repair what keeps it from starting")
        };
        self.pool
            .ready()
            .map_err(|e| failed("IMAP", &self.settings.imap.server, e))?;
        self.smtp
            .ready()
            .map_err(|e| failed("SMTP", &self.settings.smtp.server, e))
    }

    fn quiesce(&self, pause: Pause) -> Result<()> {
        match pause {
            Pause::Snapshot { files_closed } => {
                if files_closed {
                    self.forget_sessions();
                    self.stop_server();
                }
                self.hook(&self.settings.hooks.before_snapshot)
            }
            Pause::Rewind => {
                self.forget_sessions();
                self.stop_server();
                lock(&self.queued).clear();
                self.hook(&self.settings.hooks.before_rewind)
            }
            Pause::ReplayBegins | Pause::ReplayEnds => {
                if self.can_relax() {
                    self.stop_server();
                }
                Ok(())
            }
        }
    }

    fn resume(&self, pause: Pause) -> Result<()> {
        let begins_or_ends = matches!(pause, Pause::ReplayBegins | Pause::ReplayEnds);
        if begins_or_ends && !self.can_relax() {
            return Ok(());
        }
        let hooked = match pause {
            Pause::ReplayBegins | Pause::ReplayEnds => Ok(()),
            Pause::Snapshot { .. } => self.hook(&self.settings.hooks.after_snapshot),
            Pause::Rewind => {
                self.factory.forget();
                lock(&self.told).clear();
                self.hook(&self.settings.hooks.after_rewind)
            }
        };
        if let Some(server) = self.server.get() {
            if !matches!(pause, Pause::Snapshot { .. }) {
                server.relax(pause == Pause::ReplayBegins);
            }
            server.go_on();
        }
        // One that does not come up may be what the operator is about to repair.
        let _ = self.wait_until_ready(START);
        hooked
    }

    fn scope_paths(&self, scope: &str) -> Option<Vec<std::path::PathBuf>> {
        Scope::parse(scope).paths(&self.settings.imap.mail_of_user)
    }

    fn has_scope(&self, scope: &str) -> bool {
        let scope = Scope::parse(scope);
        let Some(folder) = scope.folder else {
            return true;
        };
        let live = self.settings.home.join("live");
        let paths = scope.paths(&self.settings.imap.mail_of_user);
        let is_there = |path: &std::path::PathBuf| live.join(path).exists();
        let named = self.factory.folder(scope.user, folder);
        paths.is_some_and(|paths| paths.iter().any(is_there))
            || named.is_ok_and(|f| !f.is_inbox() && self.factory.made(scope.user, &f))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|p| p.into_inner())
}

/// A store that is shared by the manager and the proxies.
pub type Manager = Arc<undo::Manager<MailStore>>;
