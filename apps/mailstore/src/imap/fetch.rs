//! FETCH: the answer for one message at a time, sent as it is made.

use std::time::SystemTime;

use super::command::{Fetch, Item, SectionName};
use super::view::{View, flag_names};
use crate::clock;
use crate::failure::Result;
use crate::maildir::changes::Combine;
use crate::maildir::mailbox::Message;
use crate::maildir::name::Flags;
use crate::message::describe;
use crate::message::section::Section;
use crate::message::structure::{self, Part};

/// What of a message's file the items need.
#[derive(Clone, Copy, Default)]
struct Needs {
    header: bool,
    body: bool,
    arrival: bool,
}

impl Needs {
    fn of(items: &[Item]) -> Needs {
        let mut needs = Needs::default();
        for item in items {
            match item {
                Item::InternalDate => needs.arrival = true,
                Item::Envelope => needs.header = true,
                Item::Section { section, .. } if section.is_in_header() => needs.header = true,
                Item::Body | Item::BodyStructure | Item::Section { .. } => needs.body = true,
                Item::Flags | Item::Uid | Item::Size | Item::ModSeq => {}
            }
        }
        needs
    }
}

/// Marks the messages as read whose text is fetched, all with one sync.
pub fn mark_seen(view: &View, fetch: &Fetch, uids: &[u32]) -> Result<Vec<u32>> {
    let reads = |item: &Item| matches!(item, Item::Section { peek: false, .. });
    if view.read_only || !fetch.items.iter().any(reads) {
        return Ok(Vec::new());
    }
    let mut state = view.mailbox.lock();
    view.check_there(&state)?;
    let unseen: Vec<u32> = uids
        .iter()
        .copied()
        .filter(|uid| state.find(*uid).is_some_and(|m| !m.flags.has(Flags::SEEN)))
        .collect();
    if unseen.is_empty() {
        return Ok(unseen);
    }
    Ok(view
        .mailbox
        .store(&mut state, &unseen, Combine::Add, Flags::SEEN, None)?
        .0)
}

/// Adds the answer for one message; nothing if it is gone.
pub fn one(
    view: &mut View,
    fetch: &Fetch,
    number: usize,
    uid: u32,
    newly_seen: bool,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut state = view.mailbox.lock();
    view.check_there(&state)?;
    let Some(message) = state.find(uid).cloned() else {
        return Ok(());
    };
    if fetch
        .changed_since
        .is_some_and(|since| message.modseq <= since)
    {
        return Ok(());
    }
    let size = match fetch.items.contains(&Item::Size) {
        true => view.mailbox.wire_len(&mut state, uid)?,
        false => 0,
    };
    let flags = flag_names(&state, message.flags, view.is_recent(uid));
    drop(state);

    let Some((text, arrival)) = load(view, &message, Needs::of(&fetch.items))? else {
        return Ok(());
    };
    let mut tree: Option<Part> = None;
    out.extend_from_slice(format!("* {number} FETCH (").as_bytes());
    let begin = out.len();
    for item in &fetch.items {
        if out.len() > begin {
            out.push(b' ');
        }
        match item {
            Item::Flags => out.extend_from_slice(format!("FLAGS ({flags})").as_bytes()),
            Item::Uid => out.extend_from_slice(format!("UID {uid}").as_bytes()),
            Item::Size => out.extend_from_slice(format!("RFC822.SIZE {size}").as_bytes()),
            Item::ModSeq => {
                out.extend_from_slice(format!("MODSEQ ({})", message.modseq).as_bytes())
            }
            Item::InternalDate => {
                out.extend_from_slice(
                    format!("INTERNALDATE \"{}\"", clock::imap(arrival)).as_bytes(),
                );
            }
            Item::Envelope => {
                out.extend_from_slice(b"ENVELOPE ");
                describe::envelope(out, crate::message::lines::split_header(&text).0);
            }
            Item::Body | Item::BodyStructure => {
                let extended = *item == Item::BodyStructure;
                out.extend_from_slice(if extended {
                    b"BODYSTRUCTURE "
                } else {
                    b"BODY "
                });
                let tree = tree.get_or_insert_with(|| structure::parse(&text));
                describe::body_structure(out, &text, tree, extended);
            }
            Item::Section {
                section,
                partial,
                name,
                ..
            } => {
                section_item(out, &text, &mut tree, section, *partial, *name);
            }
        }
    }
    // What reading has changed is told, with its mod-sequence (RFC 7162, section 3.2).
    if newly_seen && !fetch.items.contains(&Item::Flags) {
        out.extend_from_slice(format!(" FLAGS ({flags})").as_bytes());
    }
    if newly_seen && view.condstore && !fetch.items.contains(&Item::ModSeq) {
        out.extend_from_slice(format!(" MODSEQ ({})", message.modseq).as_bytes());
    }
    if newly_seen || fetch.items.contains(&Item::Flags) {
        view.note_told(&message);
    }
    out.extend_from_slice(b")\r\n");
    Ok(())
}

fn section_item(
    out: &mut Vec<u8>,
    text: &[u8],
    tree: &mut Option<Part>,
    section: &Section,
    partial: Option<(u64, u64)>,
    name: SectionName,
) {
    let found = section.of(text, || tree.get_or_insert_with(|| structure::parse(text)));
    match name {
        SectionName::Body => out.extend_from_slice(format!("BODY[{}]", section.name()).as_bytes()),
        SectionName::Rfc822 => out.extend_from_slice(b"RFC822"),
        SectionName::Rfc822Header => out.extend_from_slice(b"RFC822.HEADER"),
        SectionName::Rfc822Text => out.extend_from_slice(b"RFC822.TEXT"),
    }
    if let Some((from, _)) = partial {
        out.extend_from_slice(format!("<{from}>").as_bytes());
    }
    out.push(b' ');
    match found {
        None => out.extend_from_slice(b"NIL"),
        Some(octets) => {
            let (from, len) = partial.unwrap_or((0, u64::MAX));
            let from = usize::try_from(from)
                .unwrap_or(usize::MAX)
                .min(octets.len());
            let len = usize::try_from(len)
                .unwrap_or(usize::MAX)
                .min(octets.len() - from);
            describe::literal(out, &octets[from..from + len]);
        }
    }
}

/// The message's text and time of arrival. Its name may change while we come to
/// read it, so it is looked for once more; `None` if it is gone.
fn load(view: &View, message: &Message, needs: Needs) -> Result<Option<(Vec<u8>, SystemTime)>> {
    let mut message = message.clone();
    for last_try in [false, true] {
        let read = || -> Result<(Vec<u8>, SystemTime)> {
            let text = match needs {
                Needs { body: true, .. } => view.mailbox.read(&message)?,
                Needs { header: true, .. } => view.mailbox.read_header(&message)?,
                _ => Vec::new(),
            };
            let arrival = match needs.arrival {
                true => view.mailbox.arrived(&message)?,
                false => SystemTime::UNIX_EPOCH,
            };
            Ok((text, arrival))
        };
        match read() {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(failure) if failure.kind() == std::io::ErrorKind::NotFound && !last_try => {
                let mut state = view.mailbox.lock();
                view.mailbox.sync(&mut state, None)?;
                match state.find(message.uid) {
                    Some(found) => message = found.clone(),
                    None => return Ok(None),
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}
