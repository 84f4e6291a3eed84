//! Cuts the power after every step that the store makes on the disk.
//!
//! A session of deliveries, appends, flags, copies, moves and expunges is
//! recorded, with what was promised at each point. For each step the model builds
//! disks that a power cut there could have left; the store is opened on them, and
//! what was promised must hold: no message lost, torn or twice, and no pair of
//! UIDVALIDITY and UID with another message than it was told for. The last test
//! takes syncs away and demands that the first one notices.

mod place;
mod power;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use mailstore::maildir::account::{Account, INBOX};
use mailstore::maildir::changes::{Combine, Source};
use mailstore::maildir::disk::{Disk, Observer, Step};
use mailstore::maildir::folders::Renamed;
use mailstore::maildir::mailbox::Shared;
use mailstore::maildir::name::Flags;
use place::Directory;
use power::Model;

/// What a client knows of one message: its UID, which text it is, whether flagged.
type Known = BTreeMap<u32, (u32, bool)>;

/// What was promised at some point.
#[derive(Clone, Default)]
struct Promise {
    /// By mailbox: UIDVALIDITY and messages. Without an entry nothing is known.
    mailboxes: BTreeMap<String, (u32, Known)>,
    /// Texts that were delivered and not yet given a UID.
    delivered: BTreeSet<u32>,
}

enum Entry {
    Step(Step),
    Promise(Promise),
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Entry>>);

impl Observer for Recorder {
    fn saw(&self, step: Step) {
        self.0.lock().unwrap().push(Entry::Step(step));
    }
}

fn text(number: u32) -> String {
    format!(
        "Subject: {number}\r\n\r\n{}\r\n",
        format!("text {number} ").repeat(20)
    )
}

fn number_of(text: &str) -> Option<u32> {
    let number = text
        .strip_prefix("Subject: ")?
        .split_once("\r\n")?
        .0
        .parse()
        .ok()?;
    (text == self::text(number)).then_some(number)
}

/// What is in a mailbox, by UID.
fn look(mailbox: &Shared) -> (u32, Known) {
    let mut state = mailbox.lock();
    mailbox.sync(&mut state, None).unwrap();
    let known = state
        .messages
        .iter()
        .map(|message| {
            let octets = mailbox.read(message).unwrap();
            let text = String::from_utf8(octets).unwrap();
            let number = number_of(&text).unwrap_or_else(|| panic!("a torn message: {text:?}"));
            (message.uid, (number, message.flags.has(Flags::FLAGGED)))
        })
        .collect();
    (state.uids.validity, known)
}

struct Session {
    account: Account,
    recorder: Arc<Recorder>,
    promise: Promise,
    next: u32,
}

impl Session {
    fn mailbox(&self, name: &str) -> Shared {
        self.account.mailbox(name).unwrap().unwrap()
    }

    /// The client looks at a mailbox and is told all of it.
    fn tell(&mut self, name: &str) {
        let seen = look(&self.mailbox(name));
        if name == INBOX {
            self.promise.delivered.clear();
        }
        self.promise.mailboxes.insert(name.to_string(), seen);
    }

    fn promised(&self) {
        self.recorder
            .0
            .lock()
            .unwrap()
            .push(Entry::Promise(self.promise.clone()));
    }

    fn deliver(&mut self) {
        self.next += 1;
        self.account
            .deliver(INBOX, text(self.next).as_bytes())
            .unwrap();
        self.promise.delivered.insert(self.next);
        self.promised();
    }

    fn look_at(&mut self, name: &str) {
        self.tell(name);
        self.promised();
    }

    fn append(&mut self, name: &str) {
        self.next += 1;
        let mailbox = self.mailbox(name);
        let text = text(self.next);
        let source = Source::Text(text.as_bytes(), SystemTime::now());
        mailbox
            .add(&mut mailbox.lock(), &[(source, Flags::SEEN)])
            .unwrap();
        self.tell(name);
        self.promised();
    }

    fn flag(&mut self, name: &str, uids: &[u32]) {
        let mailbox = self.mailbox(name);
        mailbox
            .store(
                &mut mailbox.lock(),
                uids,
                Combine::Add,
                Flags::FLAGGED,
                None,
            )
            .unwrap();
        self.tell(name);
        self.promised();
    }

    fn copy(&mut self, from: &str, uids: &[u32], to: &str) {
        let (from, target) = (self.mailbox(from), self.mailbox(to));
        let messages: Vec<_> = {
            let state = from.lock();
            uids.iter()
                .map(|uid| state.find(*uid).unwrap().clone())
                .collect()
        };
        let sources: Vec<_> = messages
            .iter()
            .map(|m| (Source::Message(&from, m), m.flags))
            .collect();
        target.add(&mut target.lock(), &sources).unwrap();
        self.tell(to);
        self.promised();
    }

    fn move_(&mut self, from: &str, uids: &[u32], to: &str) {
        let (source, target) = (self.mailbox(from), self.mailbox(to));
        target
            .take_over(
                &mut target.lock(),
                &source,
                &mut source.lock(),
                uids,
                |flags| flags,
            )
            .unwrap();
        self.tell(from);
        self.tell(to);
        self.promised();
    }

    fn expunge(&mut self, name: &str, uids: &[u32]) {
        let mailbox = self.mailbox(name);
        mailbox.expunge(&mut mailbox.lock(), uids).unwrap();
        self.tell(name);
        self.promised();
    }
}

/// Plays the session; what it did to the disk and what it promised.
fn record(root: &Path) -> Vec<Entry> {
    let recorder = Arc::new(Recorder::default());
    let disk = Disk::observed_by(recorder.clone());
    let account = Account::new("anna@example.org", root.join("anna"), None, disk);
    let mut session = Session {
        account,
        recorder: recorder.clone(),
        promise: Promise::default(),
        next: 0,
    };
    session.account.prepare().unwrap();
    session.deliver();
    session.deliver();
    session.look_at(INBOX);
    session.deliver();
    session.append("Sent");
    session.append("Sent");
    session.look_at(INBOX);
    session.flag(INBOX, &[1, 3]);
    session.copy(INBOX, &[1, 2], "Archive");
    session.move_(INBOX, &[2], "Archive");
    session.deliver();
    session.move_("Archive", &[1, 3], "Trash");
    session.expunge("Trash", &[1]);
    session.look_at(INBOX);
    session.expunge(INBOX, &[4]);
    session.append(INBOX);
    assert!(session.account.create("Lists").unwrap());
    session.copy(INBOX, &[1, 3, 5], "Lists");
    assert_eq!(
        session.account.rename("Lists", "News").unwrap(),
        Renamed::Done
    );
    let lists = session.promise.mailboxes.remove("Lists").unwrap();
    session.promise.mailboxes.insert("News".into(), lists);
    session.look_at("News");
    assert!(session.account.delete("News").unwrap());
    session.promise.mailboxes.remove("News");
    session.promised();
    session.deliver();
    drop(session);
    let mut entries = recorder.0.lock().unwrap();
    std::mem::take(&mut *entries)
}

/// Cuts the power `cuts` times after each step; the first promise that is broken.
/// Steps for which `ignored` holds are left out: syncs that were never made.
fn cut_everywhere(
    root: &Path,
    entries: &[Entry],
    cuts: u64,
    ignored: &dyn Fn(&Step) -> bool,
) -> Result<usize, String> {
    let mut model = Model::new(root);
    let mut before = Promise::default();
    let mut told: BTreeMap<(String, u32, u32), u32> = BTreeMap::new();
    let mut tried = 0;
    for (at, entry) in entries.iter().enumerate() {
        match entry {
            Entry::Promise(promise) => before = promise.clone(),
            Entry::Step(step) if ignored(step) => continue,
            Entry::Step(step) => model.take(step),
        }
        let after = entries[at..].iter().find_map(|entry| match entry {
            Entry::Promise(promise) => Some(promise),
            Entry::Step(_) => None,
        });
        let after = after.unwrap_or(&before);
        for (name, (validity, known)) in &before.mailboxes {
            for (uid, (number, _)) in known {
                told.insert((name.clone(), *validity, *uid), *number);
            }
        }
        for cut in 0..cuts {
            let target = Directory::new("cut");
            let mut random = (at as u64 * 1000 + cut).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut choose = |below: usize| match cut {
                0 => 0,         // only what is durable
                1 => below - 1, // all
                _ => {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    (random >> 33) as usize % below
                }
            };
            model.cut(&target.0, &mut choose);
            tried += 1;
            let holds = std::panic::catch_unwind(|| holds(&target.0, &before, after, &told));
            match holds {
                Ok(Ok(())) => {}
                Ok(Err(broken)) => return Err(format!("after step {at}, cut {cut}: {broken}")),
                Err(_) => {
                    return Err(format!(
                        "after step {at}, cut {cut}: the store cannot be read"
                    ));
                }
            }
        }
    }
    Ok(tried)
}

/// Opens the store on what is left. `before` is what was promised; `after` is what
/// the command under way would promise.
fn holds(
    root: &Path,
    before: &Promise,
    after: &Promise,
    told: &BTreeMap<(String, u32, u32), u32>,
) -> Result<(), String> {
    let account = Account::new("anna@example.org", root.join("anna"), None, Disk::default());
    account.prepare().map_err(|failure| failure.to_string())?;
    let mut found: BTreeMap<String, (u32, Known)> = BTreeMap::new();
    for name in account.list().map_err(|failure| failure.to_string())? {
        let mailbox = account
            .mailbox(&name)
            .map_err(|failure| failure.to_string())?;
        found.insert(name, look(&mailbox.ok_or("a listed mailbox is not there")?));
    }
    let nothing = (0, Known::new());
    for (name, (validity, known)) in &found {
        for (uid, (number, _)) in known {
            if let Some(old) = told
                .get(&(name.clone(), *validity, *uid))
                .filter(|old| *old != number)
            {
                return Err(format!(
                    "{name}: UID {uid} was text {old} and is text {number}"
                ));
            }
        }
    }
    for (name, (validity, known)) in &before.mailboxes {
        let Some((will_validity, will)) = after.mailboxes.get(name) else {
            continue;
        };
        let (is_validity, is) = found.get(name).unwrap_or(&nothing);
        if validity == will_validity && validity != is_validity {
            return Err(format!(
                "{name}: UIDVALIDITY was {validity} and is {is_validity}"
            ));
        }
        for (uid, one) in known {
            // What the command under way changes may be either.
            if will.get(uid) == Some(one) && is.get(uid) != Some(one) {
                return Err(format!(
                    "{name}: UID {uid} was {one:?} and is {:?}",
                    is.get(uid)
                ));
            }
        }
    }
    let count = |mailboxes: &BTreeMap<String, (u32, Known)>, wanted: u32| {
        mailboxes
            .values()
            .flat_map(|(_, known)| known.values())
            .filter(|(n, _)| *n == wanted)
            .count()
    };
    for number in 1..=20 {
        let with = |promise: &Promise| {
            count(&promise.mailboxes, number) + usize::from(promise.delivered.contains(&number))
        };
        let (was, will, is) = (with(before), with(after), count(&found, number));
        if !(was.min(will)..=was.max(will)).contains(&is) {
            return Err(format!(
                "text {number} was there {was} times, will be {will} times, and is {is} times"
            ));
        }
    }
    Ok(())
}

#[test]
fn what_was_promised_holds_after_every_step() {
    let root = Directory::new("power");
    let entries = record(&root.0);
    let tried = cut_everywhere(&root.0, &entries, 5, &|_| false)
        .unwrap_or_else(|broken| panic!("{broken}"));
    // So that the test cannot pass by doing nothing.
    assert!(tried > 1000, "only {tried} power cuts");
}

/// What is left out, and whether a step is of it.
type Plant = (&'static str, fn(&Step) -> bool);

#[test]
fn a_sync_that_is_left_out_is_noticed() {
    let root = Directory::new("planted");
    let entries = record(&root.0);
    let plants: [Plant; 5] = [
        (
            "messages are not synced",
            |step| matches!(step, Step::SyncFile(path) if path.to_str().unwrap().contains("/tmp/")),
        ),
        (
            "deliveries are not synced",
            |step| matches!(step, Step::SyncDir(path) if path.ends_with("new")),
        ),
        (
            "what is in cur is not synced",
            |step| matches!(step, Step::SyncDir(path) if path.ends_with("cur")),
        ),
        (
            "UIDs are not synced",
            |step| matches!(step, Step::SyncFile(path) if path.ends_with("dovecot-uidlist")),
        ),
        (
            "the tree is not synced",
            |step| matches!(step, Step::SyncDir(path) if path.ends_with("anna")),
        ),
    ];
    for (name, ignored) in plants {
        let broken = cut_everywhere(&root.0, &entries, 5, &ignored);
        assert!(broken.is_err(), "not noticed: {name}");
    }
}
