//! What a session has been told of its selected mailbox.
//!
//! Sequence numbers are places in what was told, so they change only when the
//! client is told so. `report` compares what was told with what is, and tells the
//! difference; a message that others have expunged keeps its place until a
//! command at which RFC 3501 (section 7.4.1) allows to say so.

use crate::failure::{Failure, Result};
use crate::imap::command::Set;
use crate::maildir::mailbox::{self, Message, Shared, State};
use crate::maildir::name::Flags;

pub struct View {
    pub mailbox: Shared,
    pub read_only: bool,
    /// MODSEQ goes with every change that is told.
    pub condstore: bool,
    session: u64,
    told: Vec<Told>,
    /// The state's version that was told whole; `None` if some of it was not.
    version: Option<u64>,
}

#[derive(Clone, Copy)]
pub struct Told {
    pub uid: u32,
    flags: Flags,
    modseq: u64,
    pub recent: bool,
}

/// Whether expunged messages may be told now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expunges {
    Tell,
    Hold,
}

impl View {
    pub fn open(mailbox: Shared, read_only: bool, condstore: bool, session: u64) -> Result<View> {
        let mut view = View {
            mailbox,
            read_only,
            condstore,
            session,
            told: Vec::new(),
            version: None,
        };
        let mut ignored = Vec::new();
        view.report(&mut ignored, Expunges::Tell, false)?;
        Ok(view)
    }

    pub fn messages(&self) -> &[Told] {
        &self.told
    }

    pub fn recent_count(&self) -> usize {
        self.told.iter().filter(|told| told.recent).count()
    }

    /// The UIDs that a set means, with their sequence numbers, in order.
    pub fn resolve(&self, set: &Set, uid: bool) -> Vec<(usize, u32)> {
        let last = match uid {
            true => self.told.last().map_or(0, |told| told.uid),
            false => self.told.len() as u32,
        };
        let mut places = Vec::new();
        for (low, high) in set.ranges(last) {
            let (from, to) = match uid {
                true => (
                    self.told.partition_point(|told| told.uid < low),
                    self.told.partition_point(|told| told.uid <= high),
                ),
                false => (
                    (low as usize).saturating_sub(1),
                    (high as usize).min(self.told.len()),
                ),
            };
            if from < to {
                places.push((from, to));
            }
        }
        places.sort_unstable();
        let mut out = Vec::new();
        let mut next = 0;
        for (from, to) in places {
            for place in from.max(next)..to {
                out.push((place + 1, self.told[place].uid));
            }
            next = next.max(to);
        }
        out
    }

    /// Whether a set of sequence numbers names messages that are not there.
    pub fn exceeds(&self, set: &Set, uid: bool) -> bool {
        let count = self.told.len() as u32;
        !uid && set
            .0
            .iter()
            .any(|(a, b)| [a, b].into_iter().flatten().any(|n| *n > count))
    }

    pub fn sequence_number(&self, uid: u32) -> Option<usize> {
        self.told
            .binary_search_by_key(&uid, |told| told.uid)
            .ok()
            .map(|place| place + 1)
    }

    pub fn is_recent(&self, uid: u32) -> bool {
        self.sequence_number(uid)
            .is_some_and(|number| self.told[number - 1].recent)
    }

    /// Notes that the client knows these flags already.
    pub fn note_told(&mut self, message: &Message) {
        if let Some(number) = self.sequence_number(message.uid) {
            let told = &mut self.told[number - 1];
            told.flags = message.flags;
            told.modseq = message.modseq;
        }
    }

    /// Looks at the mailbox and tells what has changed.
    pub fn report(&mut self, out: &mut Vec<u8>, expunges: Expunges, with_uid: bool) -> Result<()> {
        let mailbox = self.mailbox.clone();
        let mut state = mailbox.lock();
        let claim = (!self.read_only).then_some(self.session);
        mailbox.sync(&mut state, claim)?;
        self.check_there(&state)?;
        if self.version == Some(state.version) {
            return Ok(());
        }
        let held = self.tell_expunged(out, &state, expunges);
        let last_told = self.told.last().map_or(0, |told| told.uid);
        let first_new = state.messages.partition_point(|m| m.uid <= last_told);
        if first_new + held != self.told.len() {
            // A message has come back under an old UID, which no client could follow.
            return Err(Failure::because(
                format!("go on with the mailbox {}", self.mailbox.name),
                "its messages were changed by another program; select it again",
            ));
        }
        for message in &state.messages[first_new..] {
            let recent = message.is_unclaimed() || message.recent_for == self.session;
            let Message {
                uid, flags, modseq, ..
            } = *message;
            self.told.push(Told {
                uid,
                flags,
                modseq,
                recent,
            });
        }
        if first_new < state.messages.len() {
            let line = format!(
                "* {} EXISTS\r\n* {} RECENT\r\n",
                self.told.len(),
                self.recent_count()
            );
            out.extend_from_slice(line.as_bytes());
        }
        self.tell_flags(out, &state, with_uid);
        self.version = (held == 0).then_some(state.version);
        Ok(())
    }

    pub fn check_there(&self, state: &State) -> Result<()> {
        if state.gone {
            Err(mailbox::gone(&self.mailbox.name))
        } else {
            Ok(())
        }
    }

    /// Returns how many expunged messages were held back.
    fn tell_expunged(&mut self, out: &mut Vec<u8>, state: &State, expunges: Expunges) -> usize {
        let is_there = |told: &Told| state.find(told.uid).is_some();
        if expunges == Expunges::Hold {
            return self.told.iter().filter(|told| !is_there(told)).count();
        }
        let mut place = 0;
        self.told.retain(|told| {
            let stays = is_there(told);
            if stays {
                place += 1;
            } else {
                out.extend_from_slice(format!("* {} EXPUNGE\r\n", place + 1).as_bytes());
            }
            stays
        });
        0
    }

    fn tell_flags(&mut self, out: &mut Vec<u8>, state: &State, with_uid: bool) {
        let condstore = self.condstore;
        for (place, told) in self.told.iter_mut().enumerate() {
            let Some(message) = state.find(told.uid) else {
                continue;
            };
            if message.flags == told.flags && (!condstore || message.modseq == told.modseq) {
                continue;
            }
            told.flags = message.flags;
            told.modseq = message.modseq;
            let mut line = format!("* {} FETCH (", place + 1);
            if with_uid {
                line.push_str(&format!("UID {} ", told.uid));
            }
            line.push_str(&format!(
                "FLAGS ({})",
                flag_names(state, message.flags, told.recent)
            ));
            if condstore {
                line.push_str(&format!(" MODSEQ ({})", message.modseq));
            }
            line.push_str(")\r\n");
            out.extend_from_slice(line.as_bytes());
        }
    }
}

/// Flags as IMAP names them.
pub fn flag_names(state: &State, flags: Flags, recent: bool) -> String {
    const NAMES: [(Flags, &str); 5] = [
        (Flags::ANSWERED, "\\Answered"),
        (Flags::FLAGGED, "\\Flagged"),
        (Flags::DELETED, "\\Deleted"),
        (Flags::SEEN, "\\Seen"),
        (Flags::DRAFT, "\\Draft"),
    ];
    let mut names: Vec<&str> = NAMES
        .iter()
        .filter(|(flag, _)| flags.has(*flag))
        .map(|(_, name)| *name)
        .collect();
    names.extend(state.keywords.of(flags));
    if recent {
        names.push("\\Recent");
    }
    names.join(" ")
}
