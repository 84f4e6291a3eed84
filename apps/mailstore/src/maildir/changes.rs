//! What changes a mailbox: flags, expunge, append, copy, move.
//!
//! Each takes the lock's `State`, makes the change durable, and only then lets
//! it show. For a message that is to have a UID at once the order is: file in
//! `tmp`, synced; UID on record, synced; file in its place; directory synced. A
//! UID on record without a file is harmless, a file without one gets another.

use std::path::PathBuf;
use std::time::SystemTime;

use super::mailbox::{Mailbox, Message, State};
use super::name::{self, Flags};
use crate::failure::Result;
use crate::message::lines;

/// How STORE combines flags with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    Replace,
    Add,
    Remove,
}

impl Combine {
    pub fn of(self, old: Flags, given: Flags) -> Flags {
        match self {
            // `P` of Maildir has no name in IMAP, so no client can mean to take it away.
            Combine::Replace => given.with(Flags(old.0 & Flags::PASSED.0)),
            Combine::Add => old.with(given),
            Combine::Remove => old.without(given),
        }
    }
}

/// A message of the mailbox it came from, by content.
pub enum Source<'a> {
    /// Another mailbox and its locked state's message; linked, not copied.
    Message(&'a Mailbox, &'a Message),
    /// A text with CRLF or LF line ends.
    Text(&'a [u8], SystemTime),
}

impl Mailbox {
    /// Sets flags; tells which messages have others now. Messages that changed
    /// since `unchanged_since` are left alone and returned second.
    pub fn store(
        &self,
        state: &mut State,
        uids: &[u32],
        combine: Combine,
        given: Flags,
        unchanged_since: Option<u64>,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let (mut changed, mut refused) = (Vec::new(), Vec::new());
        let mut modseq = None;
        let mut told = Vec::new();
        self.changing(state, |state| {
            for uid in uids {
                let Some(message) = state.find(*uid) else {
                    continue;
                };
                if unchanged_since.is_some_and(|since| message.modseq > since) {
                    refused.push(*uid);
                    continue;
                }
                let flags = combine.of(message.flags, given);
                if flags == message.flags {
                    continue;
                }
                let from = self.path_of(message);
                let to = self.dir.join("cur").join(name::join(&message.base, flags));
                match self.disk.rename(&from, &to) {
                    // Another program has removed or renamed it: the next sync tells.
                    Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => continue,
                    other => other?,
                }
                let modseq = *modseq.get_or_insert_with(|| state.notes.next_modseq());
                if let Some(message) = state.find_mut(*uid) {
                    message.in_new = false;
                    message.flags = flags;
                    message.modseq = modseq;
                }
                told.push((*uid, modseq, flags));
                changed.push(*uid);
            }
            if !told.is_empty() {
                self.disk.sync_dir(&self.dir.join("cur"))?;
                state.notes.note(&self.disk, &self.dir, &told)?;
            }
            Ok(())
        })?;
        Ok((changed, refused))
    }

    /// Removes messages; returns how many octets of files that freed.
    pub fn expunge(&self, state: &mut State, uids: &[u32]) -> Result<u64> {
        if uids.is_empty() {
            return Ok(0);
        }
        let mut freed = 0;
        self.changing(state, |state| {
            let mut touched = [false, false];
            for uid in uids {
                let Some(message) = state.find(*uid) else {
                    continue;
                };
                freed += file_len(&self.path_of(message), &message.base);
                touched[usize::from(!message.in_new)] = true;
                self.disk.unlink(&self.path_of(message))?;
                let base = message.base.clone();
                state.uids.uids.remove(&base);
                state.notes.of_uid.remove(uid);
            }
            for (sub, touched) in ["new", "cur"].iter().zip(touched) {
                if touched {
                    self.disk.sync_dir(&self.dir.join(sub))?;
                }
            }
            let removed: std::collections::HashSet<u32> = uids.iter().copied().collect();
            state.messages.retain(|m| !removed.contains(&m.uid));
            state.notes.next_modseq();
            Ok(())
        })?;
        Ok(freed)
    }

    /// Adds messages, all or none of them visible to others before all are
    /// durable; returns their UIDs in order. For APPEND and COPY.
    pub fn add(&self, state: &mut State, sources: &[(Source, Flags)]) -> Result<Vec<u32>> {
        // Number first what came before, so that the new UIDs are the highest.
        self.sync(state, None)?;
        let mut staged: Vec<(PathBuf, String, Flags)> = Vec::new();
        let staging = || -> Result<()> {
            for (source, flags) in sources {
                let (base, path) = match source {
                    Source::Text(text, time) => {
                        let (stored, wire_len) = lines::to_stored(text);
                        let base = name::fresh_base(stored.len(), wire_len);
                        let path = self.dir.join("tmp").join(&base);
                        self.disk.create(&path, &stored, Some(*time))?;
                        (base, path)
                    }
                    Source::Message(from, message) => {
                        let base = name::base_of_copy(&message.base);
                        let path = self.dir.join("tmp").join(&base);
                        self.disk.link(&from.path_of(message), &path)?;
                        (base, path)
                    }
                };
                staged.push((path, base, *flags));
            }
            Ok(())
        };
        let mut staging = staging;
        if let Err(failure) = staging() {
            staged
                .iter()
                .for_each(|(path, _, _)| drop(self.disk.unlink(path)));
            return Err(failure);
        }
        self.place(state, staged)
    }

    /// Gives staged files their UIDs and their places.
    fn place(&self, state: &mut State, staged: Vec<(PathBuf, String, Flags)>) -> Result<Vec<u32>> {
        let modseq = state.notes.next_modseq();
        let mut uids = Vec::new();
        self.changing(state, |state| {
            let mut assigned = Vec::new();
            for (_, base, _) in &staged {
                assigned.push((state.uids.assign(base)?, base.as_str()));
            }
            state.uids.record(&self.disk, &self.dir, &assigned)?;
            uids = assigned.iter().map(|(uid, _)| *uid).collect();
            let mut told = Vec::new();
            for ((path, base, flags), uid) in staged.iter().zip(&uids) {
                self.disk
                    .rename(path, &self.dir.join("cur").join(name::join(base, *flags)))?;
                state
                    .messages
                    .push(Message::arrived(*uid, base.clone(), *flags, modseq));
                told.push((*uid, modseq, *flags));
            }
            self.disk.sync_dir(&self.dir.join("cur"))?;
            state.notes.note(&self.disk, &self.dir, &told)
        })?;
        Ok(uids)
    }

    /// Moves messages into this mailbox out of `from`; returns pairs of UIDs.
    /// Each file is in one of the two mailboxes at any moment.
    pub fn take_over(
        &self,
        state: &mut State,
        from: &Mailbox,
        from_state: &mut State,
        uids: &[u32],
        keep_flags: impl Fn(Flags) -> Flags,
    ) -> Result<Vec<(u32, u32)>> {
        self.sync(state, None)?;
        let moving: Vec<Message> = uids
            .iter()
            .filter_map(|uid| from_state.find(*uid).cloned())
            .collect();
        if moving.is_empty() {
            return Ok(Vec::new());
        }
        let modseq = state.notes.next_modseq();
        let mut pairs = Vec::new();
        self.changing(state, |state| {
            from.changing(from_state, |from_state| {
                let bases: Vec<String> =
                    moving.iter().map(|m| name::base_of_copy(&m.base)).collect();
                let mut assigned = Vec::new();
                for base in &bases {
                    assigned.push((state.uids.assign(base)?, base.as_str()));
                }
                state.uids.record(&self.disk, &self.dir, &assigned)?;
                let mut told = Vec::new();
                for (message, (uid, base)) in moving.iter().zip(&assigned) {
                    let flags = keep_flags(message.flags);
                    let to = self.dir.join("cur").join(name::join(base, flags));
                    match self.disk.rename(&from.path_of(message), &to) {
                        Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => continue,
                        other => other?,
                    }
                    state
                        .messages
                        .push(Message::arrived(*uid, base.to_string(), flags, modseq));
                    from_state.uids.uids.remove(&message.base);
                    from_state.notes.of_uid.remove(&message.uid);
                    pairs.push((message.uid, *uid));
                    told.push((*uid, modseq, flags));
                }
                self.disk.sync_dir(&self.dir.join("cur"))?;
                if moving.iter().any(|m| m.in_new) {
                    self.disk.sync_dir(&from.dir.join("new"))?;
                }
                self.disk.sync_dir(&from.dir.join("cur"))?;
                let left: std::collections::HashSet<u32> = pairs.iter().map(|p| p.0).collect();
                from_state.messages.retain(|m| !left.contains(&m.uid));
                from_state.notes.next_modseq();
                state.notes.note(&self.disk, &self.dir, &told)
            })
        })?;
        Ok(pairs)
    }
}

pub fn file_len(path: &std::path::Path, base: &str) -> u64 {
    name::size_field(base, 'S')
        .unwrap_or_else(|| std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
}
