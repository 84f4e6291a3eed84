//! The mail store as the undo manager sees it: how each verb is carried out on the real server.
//!
//! The same code serves users and replays. A verb names messages and folders by UndoID; here they
//! become what the real server calls them now.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use undo::{Call, Compensation, Error, Mode, Outcome, Pause, Result, Service, Squash};

use crate::canonical;
use crate::consistency::{self, Inconsistency};
use crate::factory::Factory;
use crate::imap::pool::{Listing, Pool, Tried, Trouble, fetched, good};
use crate::imap::session::Session;
use crate::imap::token::{self, Token};
use crate::names::{self, Folder, Message};
use crate::notices;
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
    delimiter: OnceLock<String>,
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
            pool: Pool::new(settings.login()),
            factory: Factory::open(&live.join("factory")),
            smtp,
            told: Mutex::default(),
            outbox: OnceLock::new(),
            delimiter: OnceLock::new(),
            settings,
        }
    }

    /// Through which door mail of the undo system itself goes: it is a verb like others.
    pub fn set_outbox(&self, outbox: Outbox) {
        let _ = self.outbox.set(outbox);
    }

    /// What stands between a folder and one below it.
    pub fn delimiter(&self, user: &str) -> Tried<String> {
        if let Some(known) = self.delimiter.get() {
            return Ok(known.clone());
        }
        let answer = self
            .pool
            .with(user, |session| good(session.ask(b"LIST \"\" \"\"")?))?;
        let found = answer
            .untagged
            .iter()
            .find_map(|r| r.get(2).and_then(Token::text));
        let delimiter = found.filter(|d| d != "NIL").unwrap_or_else(|| "/".into());
        Ok(self.delimiter.get_or_init(|| delimiter).clone())
    }

    fn name(&self, user: &str, folder: &Folder) -> Tried<String> {
        self.factory.name(user, folder)?.ok_or_else(|| {
            Trouble::Refused(format!("the folder {} is not there any more", folder.name))
        })
    }

    fn act(&self, call: &Call<'_, Verb>) -> Done {
        let user = &call.verb.user;
        let settle = call.mode == Mode::Settle;
        match &call.verb.act {
            Act::Deliver {
                id,
                from,
                to,
                body,
                options,
                ..
            } => {
                if settle && self.is_delivered(to, *id) {
                    return nothing();
                }
                let marked = names::with_id(*id, body);
                match self.smtp.deliver(from, to, options, &marked)? {
                    Ok(()) => nothing(),
                    Err(reply) => Err(Trouble::Refused(reply.to_string())),
                }
            }
            Act::Append {
                folder,
                id,
                flags,
                date,
                body,
            } => {
                let name = self.name(user, folder)?;
                if settle && self.holds(user, &name, *id)? {
                    return nothing();
                }
                self.append(user, &name, *id, flags, date, body)
            }
            Act::Explain { id, body } => {
                if settle && self.holds(user, "INBOX", *id)? {
                    return nothing();
                }
                self.append(user, "INBOX", *id, "", "", body)
            }
            Act::Fetch {
                folder,
                messages,
                items,
            } => self.fetch(call, folder, messages, items),
            Act::Store {
                folder,
                messages,
                how,
                flags,
            } => {
                let name = self.name(user, folder)?;
                self.on_messages(call, &name, messages, true, |set| {
                    format!("UID STORE {set} {how}.SILENT ({flags})").into_bytes()
                })
            }
            Act::Copy {
                folder,
                messages,
                to,
            }
            | Act::Move {
                folder,
                messages,
                to,
            } => {
                let moves = matches!(call.verb.act, Act::Move { .. });
                self.copy(call, folder, messages, to, moves)
            }
            Act::Select { folder, read_only } => {
                let name = self.name(user, folder)?;
                self.pool
                    .within(user, &name, *read_only, |session, listing| {
                        let selected = session.selected.clone();
                        let (flags, permanent_flags) = selected
                            .map(|s| (s.flags, s.permanent_flags))
                            .unwrap_or_default();
                        let listing = listing.clone();
                        Ok((
                            Shown::Nothing,
                            Answer {
                                listing,
                                flags,
                                permanent_flags,
                                ..Answer::default()
                            },
                        ))
                    })
            }
            Act::Expunge { folder, messages } | Act::Close { folder, messages } => {
                let name = self.name(user, folder)?;
                // The flag is set again: what the client wanted gone must go, also if a replay
                // finds it without the flag.
                self.on_messages(call, &name, messages, true, |set| {
                    format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)").into_bytes()
                })?;
                self.on_messages(call, &name, messages, true, |set| {
                    format!("UID EXPUNGE {set}").into_bytes()
                })
            }
            Act::List {
                reference,
                pattern,
                subscribed,
            } => {
                let word = if *subscribed { "LSUB" } else { "LIST" };
                let answer = self.pool.with(user, |session| {
                    let mut command = format!("{word} ").into_bytes();
                    command.extend(token::quote(reference.as_bytes()));
                    command.push(b' ');
                    command.extend(token::quote(pattern.as_bytes()));
                    good(session.ask(&command)?)
                })?;
                let is_list =
                    |r: &&Vec<Token>| r.first().and_then(Token::word).as_deref() == Some(word);
                let untagged: Vec<Vec<Token>> =
                    answer.untagged.iter().filter(is_list).cloned().collect();
                let names = untagged
                    .iter()
                    .filter_map(|r| r.get(3).and_then(Token::bytes));
                let shown = names.map(|n| names::hash(&[n])).collect();
                Ok((
                    Shown::Folders(shown),
                    Answer {
                        untagged,
                        ..Answer::default()
                    },
                ))
            }
            Act::Status { folder, items } => {
                let name = self.name(user, folder)?;
                let answer = self.pool.with(user, |session| {
                    let mut command = b"STATUS ".to_vec();
                    command.extend(token::quote(name.as_bytes()));
                    command.extend(format!(" ({items})").as_bytes());
                    good(session.ask(&command)?)
                })?;
                Ok((
                    Shown::Nothing,
                    Answer {
                        untagged: answer.untagged,
                        ..Answer::default()
                    },
                ))
            }
            Act::Create { folder } => {
                let was_there = settle || self.exists(user, &folder.name)?;
                let result = self.simple(user, "CREATE", &[&folder.name]);
                let there = |text: &str| text.to_uppercase().contains("EXISTS");
                match result {
                    Err(Trouble::Refused(text)) if settle && there(&text) => {}
                    // Dovecot may say NO to what it has done, if another of its processes looks
                    // at the same time. What has happened must be history.
                    Err(Trouble::Refused(_))
                        if !was_there && self.exists(user, &folder.name)? => {}
                    other => drop(other?),
                }
                let delimiter = self.delimiter(user)?;
                self.factory.set(user, folder, &folder.name, &delimiter)?;
                nothing()
            }
            Act::Rename { folder, to } => {
                let name = self.name(user, folder)?;
                if !(settle && name == *to) {
                    let was_there =
                        settle || (self.exists(user, &name)? && !self.exists(user, to)?);
                    let result = self.simple(user, "RENAME", &[&name, to]);
                    let has_moved =
                        || Ok(self.exists(user, to)? && !self.exists(user, &name)?) as Tried<bool>;
                    if result.is_err() && !(was_there && has_moved()?) {
                        result?;
                    }
                }
                self.pool.forget_folder(user, &name);
                let delimiter = self.delimiter(user)?;
                self.factory.set(user, folder, to, &delimiter)?;
                nothing()
            }
            Act::Delete { folder } => {
                let name = self.name(user, folder)?;
                // A session that has it selected would keep it alive.
                self.pool.forget_folder(user, &name);
                let was_there = settle || self.exists(user, &name)?;
                let result = self.simple(user, "DELETE", &[&name]);
                // A server may say NO to what it has done. What has happened must be history.
                if result.is_err() && (!was_there || self.exists(user, &name)?) {
                    result?;
                }
                self.factory.remove(user, folder)?;
                nothing()
            }
            Act::Subscribe { folder, on } => {
                let name = self.name(user, folder)?;
                let word = if *on { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
                self.simple(user, word, &[&name])
            }
        }
    }

    fn simple(&self, user: &str, word: &str, names: &[&str]) -> Done {
        self.pool.with(user, |session| {
            let mut command = word.as_bytes().to_vec();
            for name in names {
                command.push(b' ');
                command.extend(token::quote(name.as_bytes()));
            }
            good(session.ask(&command)?)
        })?;
        nothing()
    }

    fn exists(&self, user: &str, name: &str) -> Tried<bool> {
        let answer = self.pool.with(user, |session| {
            let mut command = b"LIST \"\" ".to_vec();
            command.extend(token::quote(name.as_bytes()));
            good(session.ask(&command)?)
        })?;
        Ok(answer
            .untagged
            .iter()
            .any(|r| r.first().and_then(Token::word).as_deref() == Some("LIST")))
    }

    pub fn append(
        &self,
        user: &str,
        name: &str,
        id: u64,
        flags: &str,
        date: &str,
        body: &[u8],
    ) -> Done {
        let marked = names::with_id(id, body);
        self.pool.with(user, |session| {
            let mut command = b"APPEND ".to_vec();
            command.extend(token::quote(name.as_bytes()));
            command.extend(format!(" ({flags})").as_bytes());
            if !date.is_empty() {
                command.extend(format!(" \"{date}\"").as_bytes());
            }
            command.extend(format!(" {{{}+}}\r\n", marked.len()).as_bytes());
            command.extend(&marked);
            good(session.ask(&command)?)
        })?;
        nothing()
    }

    /// Whether a folder holds a message with this UndoID.
    fn holds(&self, user: &str, name: &str, id: u64) -> Tried<bool> {
        self.pool.within(user, name, true, |_, listing| {
            Ok(listing.iter().any(|(_, m)| m.id == id))
        })
    }

    /// Whether a delivery that may have happened did: the message is in a folder of its recipient.
    fn is_delivered(&self, to: &str, id: u64) -> bool {
        let user = self.settings.user_of(to);
        let folders = self
            .pool
            .with(&user, |session| good(session.ask(b"LIST \"\" \"*\"")?));
        let Ok(folders) = folders else { return false };
        folders
            .untagged
            .iter()
            .filter_map(|response| response.get(3).and_then(Token::text))
            .any(|name| self.holds(&user, &name, id).unwrap_or(false))
    }

    fn fetch(
        &self,
        call: &Call<'_, Verb>,
        folder: &Folder,
        messages: &[Message],
        items: &str,
    ) -> Done {
        let user = &call.verb.user;
        let name = self.name(user, folder)?;
        let read_only = call.mode == Mode::ReadOnly;
        let patience = Duration::from_secs_f64(self.settings.imap.arrival_patience_s);
        let deadline = Instant::now() + patience;
        loop {
            let mut found =
                self.pool
                    .within_naming(user, &name, read_only, messages, |session, listing| {
                        fetch_messages(session, listing, messages, items)
                    })?;
            let replays = matches!(call.mode, Mode::Replay(_));
            if replays && found.len() < messages.len() && Instant::now() < deadline {
                // The real server has accepted a message, and has not stored it yet.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            let mut by_message: std::collections::HashMap<Message, u64> = found
                .iter()
                .map(|(m, items)| (*m, canonical::shown(items)))
                .collect();
            let shown = messages
                .iter()
                .map(|m| by_message.remove(m).unwrap_or(0))
                .collect();
            found.sort_by_key(|(m, _)| *m);
            return Ok((
                Shown::Messages(shown),
                Answer {
                    fetched: found,
                    ..Answer::default()
                },
            ));
        }
    }

    /// Does something to messages of a folder. Those that are not there are left out, if `some`
    /// are enough; whether a verb that found less than it should is inconsistent is not for here.
    fn on_messages(
        &self,
        call: &Call<'_, Verb>,
        name: &str,
        messages: &[Message],
        some: bool,
        command: impl Fn(&str) -> Vec<u8>,
    ) -> Done {
        let user = &call.verb.user;
        self.pool
            .within_naming(user, name, false, messages, |session, listing| {
                let (uids, there) = uids_of(listing, messages);
                if uids.is_empty() && !messages.is_empty() && !some {
                    return Err(Trouble::Refused(
                        "the messages are not there any more".into(),
                    ));
                }
                if !uids.is_empty() {
                    good(session.ask(&command(&token::show_set(&uids)))?)?;
                }
                let shown = messages
                    .iter()
                    .map(|m| u64::from(there.contains(m)))
                    .collect();
                Ok((Shown::Messages(shown), Answer::default()))
            })
    }

    fn copy(
        &self,
        call: &Call<'_, Verb>,
        folder: &Folder,
        messages: &[Message],
        to: &Folder,
        moves: bool,
    ) -> Done {
        let user = &call.verb.user;
        let (name, target) = (self.name(user, folder)?, self.name(user, to)?);
        let mut messages_now = messages.to_vec();
        if call.mode == Mode::Settle {
            let there = self
                .pool
                .within(user, &target, true, |_, l| Ok(l.clone()))?;
            messages_now.retain(|m| !there.iter().any(|(_, other)| other.id == m.id));
        }
        let word = if moves { "UID MOVE" } else { "UID COPY" };
        let done = self.on_messages(call, &name, &messages_now, false, |set| {
            let mut command = format!("{word} {set} ").into_bytes();
            command.extend(token::quote(target.as_bytes()));
            command
        })?;
        Ok(if call.mode == Mode::Settle {
            (Shown::Messages(vec![1; messages.len()]), Answer::default())
        } else {
            done
        })
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

fn nothing() -> Done {
    Ok((Shown::Nothing, Answer::default()))
}

/// The UIDs that these messages have now, ascending, and which of them there are.
fn uids_of(
    listing: &Listing,
    messages: &[Message],
) -> (Vec<u32>, std::collections::HashSet<Message>) {
    let wanted: std::collections::HashSet<&Message> = messages.iter().collect();
    let found: Vec<&(u32, Message)> = listing.iter().filter(|(_, m)| wanted.contains(m)).collect();
    let mut uids: Vec<u32> = found.iter().map(|(uid, _)| *uid).collect();
    uids.sort_unstable();
    (uids, found.into_iter().map(|(_, m)| *m).collect())
}

type Fetched = Vec<(Message, Vec<(String, Token)>)>;

/// Fetches items of messages as a client would, and gives them back under their UndoIDs.
pub fn fetch_messages(
    session: &mut Session,
    listing: &Listing,
    messages: &[Message],
    items: &str,
) -> Tried<Fetched> {
    let (uids, _) = uids_of(listing, messages);
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let command = format!("UID FETCH {} (UID {items})", token::show_set(&uids));
    let answer = good(session.ask(command.as_bytes())?)?;
    let by_uid: std::collections::HashMap<u32, Message> = listing.iter().copied().collect();
    let mut found = Fetched::new();
    for (uid, items) in fetched(&answer.untagged) {
        let Some(&message) = by_uid.get(&uid) else {
            continue;
        };
        // Flags that others change come as responses of their own.
        match found.iter_mut().rev().find(|(m, _)| *m == message) {
            Some((_, known)) => {
                let new = items
                    .into_iter()
                    .filter(|(n, _)| !known.iter().any(|(k, _)| k == n));
                let new: Vec<_> = new.collect();
                known.extend(new);
            }
            None => found.push((message, items)),
        }
    }
    Ok(found)
}

impl Service for MailStore {
    type Verb = Verb;
    type Tag = Shown;
    type Inconsistency = Inconsistency;
    type Answer = Answer;

    fn execute(&self, call: &Call<'_, Verb>) -> (Outcome<Shown>, Answer) {
        match self.act(call) {
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
        if pause
            != (Pause::Snapshot {
                files_closed: false,
            })
        {
            self.pool.forget();
            self.smtp.forget();
        }
        match pause {
            Pause::Snapshot { .. } => self.hook(&self.settings.hooks.before_snapshot),
            Pause::Rewind => self.hook(&self.settings.hooks.before_rewind),
        }
    }

    fn resume(&self, pause: Pause) -> Result<()> {
        match pause {
            Pause::Snapshot { .. } => self.hook(&self.settings.hooks.after_snapshot),
            Pause::Rewind => {
                self.factory.forget();
                self.told.lock().unwrap_or_else(|p| p.into_inner()).clear();
                self.hook(&self.settings.hooks.after_rewind)
            }
        }
    }

    fn scope_paths(&self, scope: &str) -> Option<Vec<std::path::PathBuf>> {
        let mail = self.settings.imap.mail_of_user.replace("{user}", scope);
        let outside = scope.is_empty() || scope.contains('/') || scope.contains("..");
        (!outside).then(|| {
            let names = std::path::Path::new("factory").join(crate::factory::file_name(scope));
            vec![mail.into(), names]
        })
    }
}

/// A store that is shared by the manager and the proxies.
pub type Manager = Arc<undo::Manager<MailStore>>;
