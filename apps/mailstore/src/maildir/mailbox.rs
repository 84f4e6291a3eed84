//! One mailbox: what is in its directory, numbered.
//!
//! All sessions share one `Mailbox` and take its lock for as long as they read
//! or change it. What the directory holds is the truth; this is what was seen
//! of it last, and `sync` looks again when the directory's times say that
//! something was changed. A delivery only puts a file into `new` and calls
//! `announce`; whoever looks next gives the message its UID.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::disk::Disk;
use super::keywords::Keywords;
use super::modseq::Notes;
use super::name::{self, Flags};
use super::uidlist::UidList;
use crate::failure::{Action, Failure, Result};
use crate::message::lines;

/// Another program's change in the same tick of the clock as one of ours would
/// not show in the directory's time, so after ours we look once more.
const LOOK_AGAIN: Duration = Duration::from_millis(1500);

/// Most headers are shorter.
const HEADER_PART: u64 = 8 << 10;

#[derive(Clone, Debug)]
pub struct Message {
    pub uid: u32,
    pub base: String,
    /// Still in `new`: no session has claimed it as recent.
    pub in_new: bool,
    pub flags: Flags,
    pub modseq: u64,
    /// The session that saw it first, and to which it is \Recent; 0 if there was none.
    pub recent_for: u64,
    /// Octets with CRLF line ends, once known.
    wire_len: Option<u64>,
}

impl Message {
    /// Its file, below the mailbox's directory.
    pub fn file(&self) -> PathBuf {
        if self.in_new {
            Path::new("new").join(&self.base)
        } else {
            Path::new("cur").join(name::join(&self.base, self.flags))
        }
    }

    /// One that came by APPEND, COPY or MOVE, which nobody has seen.
    pub(super) fn arrived(uid: u32, base: String, flags: Flags, modseq: u64) -> Message {
        Message {
            recent_for: UNCLAIMED,
            ..Message::new(uid, base, flags, modseq)
        }
    }

    /// No session has seen it yet.
    pub fn is_unclaimed(&self) -> bool {
        self.in_new || self.recent_for == UNCLAIMED
    }

    pub(super) fn new(uid: u32, base: String, flags: Flags, modseq: u64) -> Message {
        let wire_len = name::size_field(&base, 'W');
        Message {
            uid,
            base,
            in_new: false,
            flags,
            modseq,
            recent_for: 0,
            wire_len,
        }
    }
}

/// Stands for the session that will see a message first.
pub(super) const UNCLAIMED: u64 = u64::MAX;

/// What was seen of the directory, and what is told of it.
pub struct State {
    pub uids: UidList,
    pub keywords: Keywords,
    pub notes: Notes,
    /// In the order of UIDs.
    pub messages: Vec<Message>,
    /// The mailbox was deleted or renamed under the sessions that have it selected.
    pub gone: bool,
    /// Rises with every change, so that a session knows whether to compare.
    pub version: u64,
    seen_times: Option<[SystemTime; 2]>,
    seen_arrivals: u64,
    look_again_at: Option<Instant>,
}

impl State {
    pub fn find(&self, uid: u32) -> Option<&Message> {
        self.messages
            .binary_search_by_key(&uid, |m| m.uid)
            .ok()
            .map(|at| &self.messages[at])
    }

    pub(super) fn find_mut(&mut self, uid: u32) -> Option<&mut Message> {
        self.messages
            .binary_search_by_key(&uid, |m| m.uid)
            .ok()
            .map(|at| &mut self.messages[at])
    }
}

pub struct Mailbox {
    pub name: String,
    pub dir: PathBuf,
    pub(super) disk: Disk,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    arrivals: AtomicU64,
}

impl Mailbox {
    /// Opens the mailbox in `dir`. `fresh_validity` gives a UIDVALIDITY that the
    /// account never had, for one that has no list of UIDs yet.
    pub fn open(
        name: &str,
        dir: PathBuf,
        disk: Disk,
        fresh_validity: impl FnOnce() -> Result<u32>,
    ) -> Result<Mailbox> {
        let uids = match UidList::load(&dir)? {
            Some(list) => list,
            None => {
                let mut list = UidList::new(fresh_validity()?, fresh_guid());
                list.rewrite(&disk, &dir)?;
                list
            }
        };
        let state = State {
            uids,
            keywords: Keywords::load(&dir)?,
            notes: Notes::load(&dir)?,
            messages: Vec::new(),
            gone: false,
            version: 0,
            seen_times: None,
            seen_arrivals: 0,
            look_again_at: None,
        };
        let (changes, _) = watch::channel(0);
        let mailbox = Mailbox {
            name: name.into(),
            dir,
            disk,
            state: Mutex::new(state),
            changes,
            arrivals: AtomicU64::new(0),
        };
        mailbox.sync(&mut mailbox.lock(), None)?;
        mailbox.drop_dead_lines(&mut mailbox.lock())?;
        Ok(mailbox)
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the process or left a state that the next sync mends.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tells waiting sessions that the directory was changed.
    pub fn announce(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A delivery has put a file into `new`, without the lock. The directory's time need not show
    /// that: it may have come while a change of ours was made, which takes over the times after it,
    /// or in the same tick of the clock of files as the last look.
    pub fn arrived_in_new(&self) {
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        self.announce();
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn path_of(&self, message: &Message) -> PathBuf {
        self.dir.join(message.file())
    }

    /// Looks at the directory if it was changed since. With `claim`, messages in
    /// `new` are moved to `cur` and are \Recent to that session.
    pub fn sync(&self, state: &mut State, claim: Option<u64>) -> Result<()> {
        if state.gone {
            return Ok(());
        }
        // Before the look, so that what comes during it is looked for next time.
        let arrivals = self.arrivals.load(Ordering::SeqCst);
        let now = self.times()?;
        let due = state.look_again_at.is_some_and(|at| Instant::now() >= at);
        if state.seen_times != Some(now) || state.seen_arrivals != arrivals || due {
            let found = self.scan()?;
            self.take_in(state, found)?;
            state.seen_times = Some(now);
            state.seen_arrivals = arrivals;
            state.look_again_at = (!due).then(|| Instant::now() + LOOK_AGAIN);
        }
        if let Some(session) = claim {
            self.claim(state, session)?;
        }
        Ok(())
    }

    /// Runs a change of ours, after which the directory need not be read again.
    pub(super) fn changing<T>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let before = self.times()?;
        let outcome = change(state);
        state.version += 1;
        if outcome.is_ok() && state.seen_times == Some(before) {
            state.seen_times = Some(self.times()?);
            state.look_again_at = Some(Instant::now() + LOOK_AGAIN);
        } else {
            state.seen_times = None;
        }
        self.announce();
        outcome
    }

    /// The message's text with CRLF line ends.
    pub fn read(&self, message: &Message) -> Result<Vec<u8>> {
        let path = self.path_of(message);
        Ok(lines::to_wire(std::fs::read(&path).on("read", &path)?))
    }

    /// The message's header with CRLF line ends; of its body as little as may be is read.
    pub fn read_header(&self, message: &Message) -> Result<Vec<u8>> {
        let path = self.path_of(message);
        let mut file = File::open(&path).on("open", &path)?;
        let mut octets = Vec::new();
        loop {
            let part = (&mut file)
                .take(HEADER_PART)
                .read_to_end(&mut octets)
                .on("read", &path)?;
            let len = lines::header_len(&octets);
            if len < octets.len() || part == 0 {
                octets.truncate(len);
                return Ok(lines::to_wire(octets));
            }
        }
    }

    /// RFC822.SIZE: from the name, else from the file, which is then remembered.
    pub fn wire_len(&self, state: &mut State, uid: u32) -> Result<u64> {
        let Some(message) = state.find(uid) else {
            return Ok(0);
        };
        if let Some(len) = message.wire_len {
            return Ok(len);
        }
        let len = self.read(message)?.len() as u64;
        if let Some(message) = state.find_mut(uid) {
            message.wire_len = Some(len);
        }
        Ok(len)
    }

    /// INTERNALDATE: the time of the file.
    pub fn arrived(&self, message: &Message) -> Result<SystemTime> {
        let path = self.path_of(message);
        std::fs::metadata(&path)
            .and_then(|m| m.modified())
            .on("look at", &path)
    }

    /// The flag of a keyword, which gets a letter if it has none; `None` if all
    /// letters are taken.
    pub fn keyword(&self, state: &mut State, name: &str) -> Result<Option<Flags>> {
        state.keywords.find_or_add(&self.disk, &self.dir, name)
    }

    fn times(&self) -> Result<[SystemTime; 2]> {
        let time = |sub: &str| {
            let path = self.dir.join(sub);
            std::fs::metadata(&path)
                .and_then(|m| m.modified())
                .on("look at", &path)
        };
        Ok([time("new")?, time("cur")?])
    }

    /// The files of `new` and `cur`: base, whether in `new`, flags.
    fn scan(&self) -> Result<HashMap<String, (bool, Flags)>> {
        let mut found = HashMap::new();
        // `new` first: a file that another program moves meanwhile is met twice
        // and not missed.
        for (sub, in_new) in [("new", true), ("cur", false)] {
            let path = self.dir.join(sub);
            for entry in std::fs::read_dir(&path).on("read", &path)? {
                let file_name = entry.on("read", &path)?.file_name();
                // A name that is no text, or a hidden one, is no message's.
                let Some(file_name) = file_name.to_str() else {
                    continue;
                };
                let (base, flags) = name::split(file_name);
                if base.is_empty() || base.starts_with('.') || base.contains(char::is_control) {
                    continue;
                }
                // In `new` a name has no flags; one with `:` there is met as it is.
                let base = if in_new { file_name } else { base };
                found.insert(base.to_string(), (in_new, flags));
            }
        }
        Ok(found)
    }

    fn take_in(&self, state: &mut State, mut found: HashMap<String, (bool, Flags)>) -> Result<()> {
        if state.messages.iter().any(|m| !found.contains_key(&m.base)) {
            // A rename during the reading may hide a file: only what is missing
            // twice is gone.
            found = self.scan()?;
        }
        let mut modseq = None;
        let mut told = Vec::new();
        let mut changed = false;
        let State {
            messages,
            uids,
            notes,
            ..
        } = &mut *state;
        messages.retain(|message| {
            let stays = found.contains_key(&message.base);
            if !stays {
                uids.uids.remove(&message.base);
                notes.of_uid.remove(&message.uid);
                changed = true;
            }
            stays
        });
        for message in messages.iter_mut() {
            let Some((in_new, flags)) = found.remove(&message.base) else {
                continue;
            };
            message.in_new = in_new;
            if message.flags != flags {
                message.flags = flags;
                message.modseq = *modseq.get_or_insert_with(|| notes.next_modseq());
                told.push((message.uid, message.modseq, flags));
            }
        }

        // What is left was not known: messages with a UID from before, and new ones.
        let mut unnumbered = Vec::new();
        let mut arrived = Vec::new();
        for (base, (in_new, flags)) in found {
            match uids.uids.get(&base) {
                Some(uid) => arrived.push((*uid, base, in_new, flags)),
                None => unnumbered.push((base, in_new, flags)),
            }
        }
        unnumbered.sort_by(|a, b| {
            name::order(&a.0)
                .cmp(&name::order(&b.0))
                .then(a.0.cmp(&b.0))
        });
        if !unnumbered.is_empty() {
            let mut assigned = Vec::new();
            for (base, _, _) in &unnumbered {
                assigned.push((uids.assign(base)?, base.as_str()));
            }
            if let Err(failure) = uids.record(&self.disk, &self.dir, &assigned) {
                // What is not on record is not numbered; the numbers are not used again.
                assigned.iter().for_each(|(_, base)| {
                    uids.uids.remove(*base);
                });
                return Err(failure);
            }
            let numbers: Vec<u32> = assigned.iter().map(|(uid, _)| *uid).collect();
            for (uid, (base, in_new, flags)) in numbers.into_iter().zip(unnumbered) {
                arrived.push((uid, base, in_new, flags));
            }
        }
        changed |= !arrived.is_empty();
        for (uid, base, in_new, flags) in arrived {
            let noted = notes
                .of_uid
                .get(&uid)
                .filter(|note| note.1 == flags)
                .map(|note| note.0);
            let modseq =
                noted.unwrap_or_else(|| *modseq.get_or_insert_with(|| notes.next_modseq()));
            if noted.is_none() {
                told.push((uid, modseq, flags));
            }
            messages.push(Message {
                in_new,
                ..Message::new(uid, base, flags, modseq)
            });
        }
        messages.sort_by_key(|message| message.uid);
        if changed || !told.is_empty() {
            state.version += 1;
        }
        if !told.is_empty() {
            state.notes.note(&self.disk, &self.dir, &told)?;
        }
        Ok(())
    }

    /// Moves what is in `new` to `cur`. Nothing is synced: at worst a message is
    /// recent once more.
    fn claim(&self, state: &mut State, session: u64) -> Result<()> {
        for message in state
            .messages
            .iter_mut()
            .filter(|m| m.recent_for == UNCLAIMED)
        {
            message.recent_for = session;
        }
        if !state.messages.iter().any(|m| m.in_new) {
            return Ok(());
        }
        self.changing(state, |state| {
            for message in state.messages.iter_mut().filter(|m| m.in_new) {
                let from = self.path_of(message);
                let (base, flags) = {
                    // A name in `new` that has flags all the same keeps them.
                    let (base, flags) = name::split(&message.base);
                    (base.to_string(), flags)
                };
                let to = self.dir.join("cur").join(name::join(&base, flags));
                match self.disk.rename(&from, &to) {
                    Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => continue,
                    other => other?,
                }
                if base != message.base {
                    state.uids.uids.remove(&message.base);
                    state.uids.uids.insert(base.clone(), message.uid);
                    state.uids.torn = true; // the names on record are to be written anew
                    message.base = base;
                }
                message.in_new = false;
                message.flags = flags;
                message.recent_for = session;
            }
            if state.uids.torn {
                state.uids.rewrite(&self.disk, &self.dir)?;
            }
            Ok(())
        })
    }

    /// Writes the list of UIDs anew when most of its messages are gone.
    fn drop_dead_lines(&self, state: &mut State) -> Result<()> {
        if state.uids.uids.len() < 2 * state.messages.len() + 128 {
            return Ok(());
        }
        let alive: HashMap<String, u32> = state
            .messages
            .iter()
            .map(|m| (m.base.clone(), m.uid))
            .collect();
        state.uids.uids = alive;
        let alive: std::collections::HashSet<u32> = state.messages.iter().map(|m| m.uid).collect();
        state.notes.of_uid.retain(|uid, _| alive.contains(uid));
        state.uids.rewrite(&self.disk, &self.dir)
    }
}

/// Many readers hold a mailbox; this one is used where only its name matters.
pub type Shared = Arc<Mailbox>;

fn fresh_guid() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unique = name::fresh_base(0, 0);
    let counter = name::order(&unique).2;
    format!(
        "{:08x}{:08x}{:08x}{counter:08x}",
        now.as_secs(),
        now.subsec_nanos(),
        std::process::id()
    )
}

/// The error of a command on a mailbox that is no longer there.
pub fn gone(name: &str) -> Failure {
    Failure::because(
        format!("use the mailbox {name}"),
        "it was deleted or renamed meanwhile",
    )
}
