//! STORE, COPY, MOVE, APPEND and EXPUNGE.

use std::time::SystemTime;

use super::command::{Flag, Set, Store};
use super::session::Outcome;
use super::view::View;
use crate::failure::{Failure, Result};
use crate::maildir::account::Account;
use crate::maildir::changes::{Source, file_len};
use crate::maildir::folders;
use crate::maildir::mailbox::{Mailbox, Message, Shared, State};
use crate::maildir::name::Flags;

const NO_SUCH_TARGET: &str = "NO [TRYCREATE] There is no such mailbox";
const OVER_QUOTA: &str = "NO [OVERQUOTA] The account's quota is used up";
const TOO_MANY_KEYWORDS: &str = "NO [LIMIT] The mailbox has 26 keywords, which is all it can have";

pub fn store(view: &mut View, store: &Store, out: &mut Vec<u8>) -> Outcome {
    if view.read_only {
        return Ok("NO [READ-ONLY] The mailbox was opened with EXAMINE".into());
    }
    if view.exceeds(&store.set, store.uid) {
        return Ok("BAD There are fewer messages".into());
    }
    let wanted = view.resolve(&store.set, store.uid);
    let uids: Vec<u32> = wanted.iter().map(|(_, uid)| *uid).collect();
    let mailbox = view.mailbox.clone();
    let mut state = mailbox.lock();
    view.check_there(&state)?;
    let Some(given) = keyword_flags(&mailbox, &mut state, &store.flags)? else {
        return Ok(TOO_MANY_KEYWORDS.into());
    };
    // Names may have been changed by another program since the last look.
    mailbox.sync(&mut state, None)?;
    let (_, refused) = mailbox.store(
        &mut state,
        &uids,
        store.combine,
        given,
        store.unchanged_since,
    )?;
    for (number, uid) in wanted {
        let Some(message) = state.find(uid) else {
            continue;
        };
        if refused.contains(&uid) {
            continue;
        }
        let told = message.clone();
        if !store.silent || view.condstore {
            let mut parts = Vec::new();
            if store.uid {
                parts.push(format!("UID {uid}"));
            }
            if !store.silent {
                let names = super::view::flag_names(&state, told.flags, view.is_recent(uid));
                parts.push(format!("FLAGS ({names})"));
            }
            if view.condstore {
                parts.push(format!("MODSEQ ({})", told.modseq));
            }
            out.extend_from_slice(format!("* {number} FETCH ({})\r\n", parts.join(" ")).as_bytes());
        }
        view.note_told(&told);
    }
    if refused.is_empty() {
        return Ok("OK Stored".into());
    }
    let numbers: Vec<u32> = match store.uid {
        true => refused,
        false => refused
            .iter()
            .filter_map(|uid| Some(view.sequence_number(*uid)? as u32))
            .collect(),
    };
    Ok(format!(
        "OK [MODIFIED {}] Some had changed meanwhile",
        set_text(&numbers)
    ))
}

/// Flags as bits of this mailbox; `None` if a keyword finds no place.
fn keyword_flags(mailbox: &Mailbox, state: &mut State, flags: &[Flag]) -> Result<Option<Flags>> {
    let mut bits = Flags::NONE;
    for flag in flags {
        let bit = match flag {
            Flag::System(bit) => Some(*bit),
            Flag::Keyword(name) => mailbox.keyword(state, name)?,
        };
        let Some(bit) = bit else { return Ok(None) };
        bits = bits.with(bit);
    }
    Ok(Some(bits))
}

pub fn append(
    account: &Account,
    target: &str,
    flags: &[Flag],
    date: Option<SystemTime>,
    text: &[u8],
) -> Outcome {
    let Some(mailbox) = find(account, target)? else {
        return Ok(NO_SUCH_TARGET.into());
    };
    if !account.has_room_for(text.len() as u64)? {
        return Ok(OVER_QUOTA.into());
    }
    if text.contains(&0) {
        return Ok("NO [CANNOT] The message has a zero octet in it".into());
    }
    let mut state = mailbox.lock();
    let Some(flags) = keyword_flags(&mailbox, &mut state, flags)? else {
        return Ok(TOO_MANY_KEYWORDS.into());
    };
    let date = date.unwrap_or_else(SystemTime::now);
    let uids = mailbox.add(&mut state, &[(Source::Text(text, date), flags)])?;
    account.charge(text.len() as i64);
    let validity = state.uids.validity;
    Ok(format!(
        "OK [APPENDUID {validity} {}] Appended",
        set_text(&uids)
    ))
}

/// COPY, or MOVE if it `moves`.
pub fn copy(
    view: &mut View,
    account: &Account,
    uid: bool,
    set: &Set,
    target: &str,
    moves: bool,
    out: &mut Vec<u8>,
) -> Outcome {
    if moves && view.read_only {
        return Ok("NO [READ-ONLY] The mailbox was opened with EXAMINE".into());
    }
    if view.exceeds(set, uid) {
        return Ok("BAD There are fewer messages".into());
    }
    let Some(mailbox) = find(account, target)? else {
        return Ok(NO_SUCH_TARGET.into());
    };
    let uids: Vec<u32> = view
        .resolve(set, uid)
        .into_iter()
        .map(|(_, uid)| uid)
        .collect();
    let same = Shared::ptr_eq(&mailbox, &view.mailbox);
    let moved = moves && !same;
    let Some((pairs, validity)) = (match moved {
        true => move_messages(view, &mailbox, &uids)?,
        false => copy_messages(view, account, &mailbox, &uids)?,
    }) else {
        return Ok(TOO_MANY_KEYWORDS.into());
    };
    if pairs.is_empty() {
        return Ok(if uids.is_empty() {
            "OK There was nothing to take".into()
        } else {
            OVER_QUOTA.into()
        });
    }
    let sources: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
    let targets: Vec<u32> = pairs.iter().map(|pair| pair.1).collect();
    let code = format!(
        "COPYUID {validity} {} {}",
        set_text(&sources),
        set_text(&targets)
    );
    if !moves {
        return Ok(format!("OK [{code}] Copied"));
    }
    if same {
        let mut state = mailbox.lock();
        mailbox.expunge(&mut state, &sources)?;
    }
    out.extend_from_slice(format!("* OK [{code}] Moved\r\n").as_bytes());
    Ok("OK Moved".into())
}

/// Pairs of old and new UIDs, and the target's UIDVALIDITY.
type Copied = Option<(Vec<(u32, u32)>, u32)>;

fn copy_messages(view: &View, account: &Account, target: &Shared, uids: &[u32]) -> Result<Copied> {
    // The source is not locked while the target is: two copies in opposite
    // directions would wait for each other. So a source may be renamed meanwhile,
    // and is then looked for once more.
    for last_try in [false, true] {
        let (messages, names) = {
            let mut state = view.mailbox.lock();
            view.check_there(&state)?;
            view.mailbox.sync(&mut state, None)?;
            let messages: Vec<Message> = uids
                .iter()
                .filter_map(|uid| state.find(*uid).cloned())
                .collect();
            let names: Vec<Vec<String>> = messages
                .iter()
                .map(|m| state.keywords.of(m.flags).map(str::to_string).collect())
                .collect();
            (messages, names)
        };
        let octets = messages
            .iter()
            .map(|m| file_len(&view.mailbox.path_of(m), &m.base))
            .sum();
        let mut state = target.lock();
        let validity = state.uids.validity;
        if !account.has_room_for(octets)? {
            return Ok(Some((Vec::new(), validity)));
        }
        let mut sources = Vec::new();
        for (message, names) in messages.iter().zip(&names) {
            let mut flags = Flags(message.flags.0 & !KEYWORDS);
            for name in names {
                match target.keyword(&mut state, name)? {
                    Some(keyword) => flags = flags.with(keyword),
                    None => return Ok(None),
                }
            }
            sources.push((Source::Message(&view.mailbox, message), flags));
        }
        match target.add(&mut state, &sources) {
            Ok(added) => {
                account.charge(octets as i64);
                let pairs = messages.iter().map(|m| m.uid).zip(added).collect();
                return Ok(Some((pairs, validity)));
            }
            Err(failure) if failure.kind() == std::io::ErrorKind::NotFound && !last_try => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::because(
        "copy messages",
        "another program goes on renaming them",
    ))
}

const KEYWORDS: u32 = (1 << 26) - 1;

/// Moves messages out of a mailbox that becomes another by that.
pub fn move_all(view: &View, target: &Shared, uids: &[u32]) -> Result<()> {
    match move_messages(view, target, uids)? {
        Some(_) => Ok(()),
        None => Err(Failure::because(
            "move the messages",
            "the new mailbox has no room for their keywords",
        )),
    }
}

fn move_messages(view: &View, target: &Shared, uids: &[u32]) -> Result<Copied> {
    let (from, to) = (&view.mailbox, target);
    // Two moves in opposite directions take the locks in the same order.
    let (mut from_state, mut to_state);
    if Shared::as_ptr(from) < Shared::as_ptr(to) {
        from_state = from.lock();
        to_state = to.lock();
    } else {
        to_state = to.lock();
        from_state = from.lock();
    }
    view.check_there(&from_state)?;
    from.sync(&mut from_state, None)?;
    let mut table = Vec::new();
    let names: Vec<String> = from_state.keywords.names().map(str::to_string).collect();
    let used = uids
        .iter()
        .filter_map(|uid| from_state.find(*uid))
        .fold(0, |used, m| used | m.flags.0);
    for name in names {
        let Some(here) = from_state.keywords.find(&name) else {
            continue;
        };
        if used & here.0 != 0 {
            match to.keyword(&mut to_state, &name)? {
                Some(there) => table.push((here, there)),
                None => return Ok(None),
            }
        }
    }
    let translate = |flags: Flags| {
        let kept = Flags(flags.0 & !KEYWORDS);
        table
            .iter()
            .filter(|(here, _)| flags.has(*here))
            .fold(kept, |all, (_, there)| all.with(*there))
    };
    let pairs = to.take_over(&mut to_state, from, &mut from_state, uids, translate)?;
    Ok(Some((pairs, to_state.uids.validity)))
}

/// Removes what is marked as deleted, or only those of it that are named.
pub fn expunge(view: &mut View, account: &Account, only: Option<&Set>) -> Result<()> {
    let mailbox = view.mailbox.clone();
    let mut state = mailbox.lock();
    view.check_there(&state)?;
    mailbox.sync(&mut state, None)?;
    let last = view.messages().last().map_or(0, |told| told.uid);
    let doomed: Vec<u32> = state
        .messages
        .iter()
        .filter(|m| m.flags.has(Flags::DELETED))
        .map(|m| m.uid)
        .filter(|uid| only.is_none_or(|set| set.has(*uid, last)))
        .collect();
    let freed = mailbox.expunge(&mut state, &doomed)?;
    account.charge(-(freed as i64));
    Ok(())
}

fn find(account: &Account, name: &str) -> Result<Option<Shared>> {
    match folders::check_name(name) {
        Ok(name) => account.mailbox(&name),
        Err(_) => Ok(None),
    }
}

/// Numbers as a set, in their order: `1:3,7`.
pub fn set_text(numbers: &[u32]) -> String {
    let mut text = String::new();
    let mut rest = numbers;
    while let Some(first) = rest.first().copied() {
        let follows = |at: usize, number: u32| u64::from(number) == u64::from(first) + at as u64;
        let run = rest
            .iter()
            .enumerate()
            .take_while(|(at, number)| follows(*at, **number))
            .count();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if run > 1 {
            text.push_str(&format!(":{}", rest[run - 1]));
        }
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn sets_are_written_as_runs() {
        assert_eq!(super::set_text(&[1, 2, 3, 7, 9, 10, 5]), "1:3,7,9:10,5");
        assert_eq!(super::set_text(&[u32::MAX]), "4294967295");
    }
}
