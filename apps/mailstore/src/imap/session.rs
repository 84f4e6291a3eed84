//! One session: reads commands and carries them out, one after the other.

use std::sync::Arc;
use std::time::Duration;

use super::command::Command;
use super::frame::{self, Frame};
use super::view::{Expunges, View};
use super::{change, fetch, folders, parse, search};
use crate::failure::Failure;
use crate::maildir::account::Account;
use crate::net::connection::{Connection, Trouble};
use crate::server::{Server, on_disk};

/// Octets of answers that are collected before they are sent.
const SEND_AT: usize = 256 << 10;
/// Another program's deliveries are seen by looking, this often, during IDLE.
const IDLE_LOOK: Duration = Duration::from_secs(20);
/// Commands in a row that make no sense.
const MAX_BAD: u32 = 20;

pub struct Session {
    pub server: Arc<Server>,
    pub connection: Connection,
    pub id: u64,
    pub account: Option<Arc<Account>>,
    pub view: Option<View>,
    /// The client knows CONDSTORE.
    pub condstore: bool,
    /// The tag of the command that is carried out.
    pub(super) tag: String,
    pub(super) failed_logins: u32,
}

/// How a command ended: the tagged line without its tag.
pub enum End {
    Tagged(String),
    /// As before, and the connection ends.
    Last(String),
    /// The command has answered by itself.
    Answered,
}

pub type Outcome = Result<String, Failure>;

pub async fn serve(server: Arc<Server>, connection: Connection) {
    let id = server.next_session();
    let mut session = Session {
        server,
        connection,
        id,
        account: None,
        view: None,
        condstore: false,
        tag: String::new(),
        failed_logins: 0,
    };
    let greeting = format!(
        "* OK [CAPABILITY {}] {} IMAP server ready\r\n",
        session.capabilities(),
        session.server.settings.hostname
    );
    let ended = match session.connection.send(greeting.as_bytes()).await {
        Ok(()) => session.talk().await,
        Err(trouble) => Err(trouble),
    };
    let farewell: &[u8] = match &ended {
        Ok(()) => b"",
        Err(Trouble::TimedOut) => b"* BYE Nothing was said for too long\r\n",
        Err(Trouble::Stopping) => b"* BYE The server stops; come back soon\r\n",
        Err(Trouble::LineTooLong) => b"* BYE A command is too long\r\n",
        Err(Trouble::Io(_)) => b"",
    };
    if !farewell.is_empty() {
        let _ = session.connection.send(farewell).await;
    }
    session.connection.close().await;
}

impl Session {
    async fn talk(&mut self) -> Result<(), Trouble> {
        let mut bad_in_a_row = 0;
        loop {
            let settings = &self.server.settings;
            let known = self.account.is_some();
            self.connection.patience = if known {
                settings.limits.idle
            } else {
                settings.limits.login
            };
            // A stranger gets no space for a message.
            let max_message = if known { settings.max_message } else { 1024 };
            let input = match frame::read(&mut self.connection, max_message).await? {
                Frame::End => return Ok(()),
                Frame::Refused { tag, text } => {
                    self.connection
                        .send(format!("{tag} {text}\r\n").as_bytes())
                        .await?;
                    continue;
                }
                Frame::Command(input) => input,
            };
            if input == b"\r\n" || input == b"\n" {
                continue;
            }
            let (tag, command) = match parse::command(&input) {
                Ok(parsed) => parsed,
                Err(bad) => {
                    bad_in_a_row += 1;
                    let line = format!("{} BAD {}\r\n", bad.tag, bad.text);
                    self.connection.send(line.as_bytes()).await?;
                    if bad_in_a_row >= MAX_BAD {
                        let line = b"* BYE Too many commands that make no sense\r\n";
                        return self.connection.send(line).await;
                    }
                    continue;
                }
            };
            bad_in_a_row = 0;
            drop(input);
            self.tag = tag;
            let mut out = Vec::new();
            let (line, last) = match self.carry_out(command, &mut out).await? {
                End::Tagged(line) => (line, false),
                End::Last(line) => (line, true),
                End::Answered => continue,
            };
            out.extend_from_slice(format!("{} {line}\r\n", self.tag).as_bytes());
            self.connection.send(&out).await?;
            if last {
                return Ok(());
            }
        }
    }

    async fn carry_out(&mut self, command: Command, out: &mut Vec<u8>) -> Result<End, Trouble> {
        let line = match command {
            Command::Capability => {
                out.extend_from_slice(
                    format!("* CAPABILITY {}\r\n", self.capabilities()).as_bytes(),
                );
                "OK Capabilities are told".into()
            }
            Command::Id => {
                let version = env!("CARGO_PKG_VERSION");
                let line = format!("* ID (\"name\" \"mailstore\" \"version\" \"{version}\")\r\n");
                out.extend_from_slice(line.as_bytes());
                "OK That is who this is".into()
            }
            Command::Logout => {
                out.extend_from_slice(b"* BYE Goodbye\r\n");
                return Ok(End::Last("OK Logged out".into()));
            }
            Command::StartTls => return self.start_tls().await,
            Command::Authenticate { mechanism, initial } => {
                return self.authenticate(&mechanism, initial).await;
            }
            Command::Login { user, password } => return self.login(&user, &password).await,
            Command::Idle if self.account.is_some() => return self.idle(out).await,
            Command::Fetch(fetch) => return self.fetch(fetch, out).await,
            other => {
                let outcome = on_disk(|| self.with_account(other, out));
                return Ok(self.end(outcome, out));
            }
        };
        Ok(End::Tagged(line))
    }

    /// What the end of a command is, after a failure too.
    fn end(&mut self, outcome: Outcome, out: &mut Vec<u8>) -> End {
        match outcome {
            Ok(line) => End::Tagged(line),
            Err(failure) => {
                crate::log!("imap {}: {failure}", self.name());
                if let Some(view) = &self.view
                    && view.mailbox.lock().gone
                {
                    out.extend_from_slice(b"* BYE The selected mailbox was deleted or renamed\r\n");
                    return End::Last("NO The mailbox is gone".into());
                }
                End::Tagged(match failure.is_out_of_space() {
                    true => "NO [OVERQUOTA] The server's disk is full".into(),
                    false => {
                        format!("NO [SERVERBUG] The server {failure}").replace(['\r', '\n'], " ")
                    }
                })
            }
        }
    }

    /// Commands that need a login and no waiting.
    fn with_account(&mut self, command: Command, out: &mut Vec<u8>) -> Outcome {
        let Some(account) = self.account.clone() else {
            if matches!(command, Command::Noop) {
                return Ok("OK Nothing done".into());
            }
            return Ok("BAD Log in first".into());
        };
        let line = match command {
            Command::Enable(names) => {
                let known = names.iter().any(|name| name == "CONDSTORE");
                if known {
                    self.know_condstore();
                }
                let enabled = if known { " CONDSTORE" } else { "" };
                out.extend_from_slice(format!("* ENABLED{enabled}\r\n").as_bytes());
                "OK Enabled".into()
            }
            Command::Select {
                mailbox,
                read_only,
                condstore,
            } => {
                if condstore {
                    self.know_condstore();
                }
                return folders::select(self, &account, &mailbox, read_only, out);
            }
            Command::Create {
                mailbox,
                special_use,
            } => folders::create(&account, &mailbox, &special_use)?,
            Command::Delete(mailbox) => folders::delete(&account, &mailbox)?,
            Command::Rename { from, to } => folders::rename(&account, &from, &to)?,
            Command::Subscribe(mailbox) => folders::subscribe(&account, &mailbox, true)?,
            Command::Unsubscribe(mailbox) => folders::subscribe(&account, &mailbox, false)?,
            Command::List(list) => folders::list(&account, &list, out)?,
            Command::Lsub { reference, pattern } => {
                folders::lsub(&account, &reference, &pattern, out)?
            }
            Command::Status { mailbox, items } => {
                if items.contains(&super::command::StatusItem::HighestModSeq) {
                    self.know_condstore();
                }
                folders::status(&account, &mailbox, &items, out)?
            }
            Command::Namespace => {
                out.extend_from_slice(b"* NAMESPACE ((\"\" \".\")) NIL NIL\r\n");
                "OK Namespaces are told".into()
            }
            Command::GetQuota(root) => folders::quota(&account, &root, out)?,
            Command::GetQuotaRoot(mailbox) => folders::quota_root(&account, &mailbox, out)?,
            Command::Append {
                mailbox,
                flags,
                date,
                text,
            } => change::append(&account, &mailbox, &flags, date, &text)?,
            Command::Noop => "OK Nothing done".into(),
            other => return self.with_view(other, &account, out),
        };
        self.report(out, Expunges::Tell, false)?;
        Ok(line)
    }

    /// Commands that need a selected mailbox.
    fn with_view(&mut self, command: Command, account: &Account, out: &mut Vec<u8>) -> Outcome {
        let Some(view) = self.view.as_mut() else {
            return Ok("BAD Select a mailbox first".into());
        };
        let (line, expunges, uid) = match command {
            Command::Check => ("OK All is on the disk".to_string(), Expunges::Tell, false),
            Command::Close => {
                if !view.read_only {
                    change::expunge(view, account, None)?;
                }
                self.view = None;
                return Ok("OK Closed".into());
            }
            Command::Unselect => {
                self.view = None;
                return Ok("OK Unselected".into());
            }
            Command::Expunge(uids) => {
                let uid = uids.is_some();
                if view.read_only {
                    return Ok("NO [READ-ONLY] The mailbox was opened with EXAMINE".into());
                }
                change::expunge(view, account, uids.as_ref())?;
                ("OK Expunged".to_string(), Expunges::Tell, uid)
            }
            Command::Search(search) => {
                let uid = search.uid;
                if search::needs_modseq(&search.keys) {
                    self.condstore = true;
                    view.condstore = true;
                }
                let line = search::search(view, &search, &self.tag, out)?;
                (line, if uid { Expunges::Tell } else { Expunges::Hold }, uid)
            }
            Command::Store(store) => {
                if store.unchanged_since.is_some() {
                    self.condstore = true;
                    view.condstore = true;
                }
                let uid = store.uid;
                let line = change::store(view, &store, out)?;
                (line, if uid { Expunges::Tell } else { Expunges::Hold }, uid)
            }
            Command::Copy {
                uid,
                set,
                mailbox,
                moves,
            } => {
                let line = change::copy(view, account, uid, &set, &mailbox, moves, out)?;
                let hold = !uid && !moves;
                (
                    line,
                    if hold { Expunges::Hold } else { Expunges::Tell },
                    uid,
                )
            }
            _ => return Ok("BAD This cannot be done now".into()),
        };
        self.report(out, expunges, uid)?;
        Ok(line)
    }

    /// Tells what has changed in the selected mailbox, if one is.
    fn report(
        &mut self,
        out: &mut Vec<u8>,
        expunges: Expunges,
        with_uid: bool,
    ) -> Result<(), Failure> {
        match self.view.as_mut() {
            Some(view) => view.report(out, expunges, with_uid),
            None => Ok(()),
        }
    }

    fn know_condstore(&mut self) {
        self.condstore = true;
        if let Some(view) = self.view.as_mut() {
            view.condstore = true;
        }
    }

    async fn fetch(
        &mut self,
        request: super::command::Fetch,
        out: &mut Vec<u8>,
    ) -> Result<End, Trouble> {
        let Some(view) = self.view.as_mut() else {
            let line = if self.account.is_some() {
                "BAD Select a mailbox first"
            } else {
                "BAD Log in first"
            };
            return Ok(End::Tagged(line.into()));
        };
        if view.exceeds(&request.set, request.uid) {
            return Ok(End::Tagged("BAD There are fewer messages".into()));
        }
        if request.changed_since.is_some() || request.items.contains(&super::command::Item::ModSeq)
        {
            self.condstore = true;
            view.condstore = true;
        }
        let wanted = view.resolve(&request.set, request.uid);
        let uids: Vec<u32> = wanted.iter().map(|(_, uid)| *uid).collect();
        let expunges = if request.uid {
            Expunges::Tell
        } else {
            Expunges::Hold
        };
        let mut newly_seen = None;
        let mut rest = wanted.as_slice();
        loop {
            let Some(view) = self.view.as_mut() else {
                return Ok(self.end(Ok("OK Fetched".into()), out));
            };
            // One turn at the disk for all that is sent at once: each costs the change to another thread.
            let made = on_disk(|| -> Result<bool, Failure> {
                let newly_seen = match &newly_seen {
                    Some(known) => known,
                    None => newly_seen.insert(fetch::mark_seen(view, &request, &uids)?),
                };
                while let Some(((number, uid), behind)) = rest.split_first() {
                    let seen_now = newly_seen.binary_search(uid).is_ok();
                    fetch::one(view, &request, *number, *uid, seen_now, out)?;
                    rest = behind;
                    if out.len() >= SEND_AT {
                        return Ok(false);
                    }
                }
                view.report(out, expunges, request.uid)?;
                Ok(true)
            });
            match made {
                Ok(true) => return Ok(self.end(Ok("OK Fetched".into()), out)),
                Ok(false) => {}
                Err(failure) => return Ok(self.end(Err(failure), out)),
            }
            self.connection.send(out).await?;
            out.clear();
        }
    }

    /// Tells changes as they come, until the client says DONE (RFC 2177).
    async fn idle(&mut self, out: &mut Vec<u8>) -> Result<End, Trouble> {
        self.connection.send(b"+ idling\r\n").await?;
        let mut changes = self.view.as_ref().map(|view| view.mailbox.watch());
        loop {
            if let Err(failure) = on_disk(|| self.report(out, Expunges::Tell, false)) {
                return Ok(self.end(Err(failure), out));
            }
            if !out.is_empty() {
                self.connection.send(out).await?;
                out.clear();
            }
            if memchr::memchr(b'\n', self.connection.unread()).is_none() {
                let changed = async {
                    match changes.as_mut() {
                        Some(changes) => drop(changes.changed().await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    read = self.connection.fill() => if read? == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    },
                    () = changed => {}
                    () = tokio::time::sleep(IDLE_LOOK) => {}
                }
                if self.connection.unread().len() > 1024 {
                    return Err(Trouble::LineTooLong);
                }
                continue;
            }
            let Some(line) = self.connection.read_line(1024).await? else {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            };
            let done = line.trim_ascii().eq_ignore_ascii_case(b"DONE");
            let line = if done {
                "OK No longer idle"
            } else {
                "BAD IDLE ends with DONE"
            };
            return Ok(End::Tagged(line.into()));
        }
    }

    /// For the log.
    fn name(&self) -> String {
        self.account
            .as_ref()
            .map_or(self.connection.peer.clone(), |account| account.name.clone())
    }
}
