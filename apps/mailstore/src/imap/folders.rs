//! Commands about mailboxes as a whole: SELECT, STATUS, LIST and the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{List, StatusItem};
use super::session::{Outcome, Session};
use super::view::View;
use crate::failure::Result;
use crate::maildir::account::{Account, INBOX};
use crate::maildir::folders::{self, Renamed, SEPARATOR};
use crate::maildir::name::Flags;
use crate::message::describe;

const NO_SUCH_MAILBOX: &str = "NO [NONEXISTENT] There is no such mailbox";

pub fn select(
    session: &mut Session,
    account: &Account,
    name: &str,
    read_only: bool,
    out: &mut Vec<u8>,
) -> Outcome {
    if session.view.take().is_some() {
        out.extend_from_slice(b"* OK [CLOSED] The mailbox before is closed\r\n");
    }
    let mailbox = match folders::check_name(name) {
        Ok(name) => account.mailbox(&name)?,
        Err(_) => None,
    };
    let Some(mailbox) = mailbox else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    let view = View::open(mailbox, read_only, session.condstore, session.id)?;
    let state = view.mailbox.lock();
    let mut flags = "\\Answered \\Flagged \\Deleted \\Seen \\Draft".to_string();
    for keyword in state.keywords.names() {
        flags.push(' ');
        flags.push_str(keyword);
    }
    let permanent = match (read_only, state.keywords.is_full()) {
        (true, _) => String::new(),
        (false, true) => flags.clone(),
        (false, false) => format!("{flags} \\*"),
    };
    let mut lines = format!(
        "* FLAGS ({flags})\r\n* OK [PERMANENTFLAGS ({permanent})] Flags that stay\r\n\
         * {} EXISTS\r\n* {} RECENT\r\n",
        view.messages().len(),
        view.recent_count()
    );
    if let Some(at) = state
        .messages
        .iter()
        .position(|m| !m.flags.has(Flags::SEEN))
    {
        lines.push_str(&format!(
            "* OK [UNSEEN {}] The first unseen message\r\n",
            at + 1
        ));
    }
    lines.push_str(&format!(
        "* OK [UIDVALIDITY {}] UIDs are valid\r\n* OK [UIDNEXT {}] The next UID\r\n\
         * OK [HIGHESTMODSEQ {}] The highest mod-sequence\r\n",
        state.uids.validity,
        state.uids.next,
        state.notes.highest.max(1)
    ));
    out.extend_from_slice(lines.as_bytes());
    drop(state);
    session.view = Some(view);
    let code = if read_only { "READ-ONLY" } else { "READ-WRITE" };
    Ok(format!("OK [{code}] Selected"))
}

pub fn status(account: &Account, name: &str, items: &[StatusItem], out: &mut Vec<u8>) -> Outcome {
    let Ok(name) = folders::check_name(name) else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    match status_line(account, &name, items, out)? {
        true => Ok("OK Status is told".into()),
        false => Ok(NO_SUCH_MAILBOX.into()),
    }
}

fn status_line(
    account: &Account,
    name: &str,
    items: &[StatusItem],
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Some(mailbox) = account.mailbox(name)? else {
        return Ok(false);
    };
    let mut state = mailbox.lock();
    mailbox.sync(&mut state, None)?;
    let count = |wanted: &dyn Fn(&crate::maildir::mailbox::Message) -> bool| {
        state.messages.iter().filter(|m| wanted(m)).count() as u64
    };
    let values: Vec<String> = items
        .iter()
        .map(|item| match item {
            StatusItem::Messages => format!("MESSAGES {}", state.messages.len()),
            StatusItem::Recent => format!("RECENT {}", count(&|m| m.is_unclaimed())),
            StatusItem::UidNext => format!("UIDNEXT {}", state.uids.next),
            StatusItem::UidValidity => format!("UIDVALIDITY {}", state.uids.validity),
            StatusItem::Unseen => format!("UNSEEN {}", count(&|m| !m.flags.has(Flags::SEEN))),
            StatusItem::HighestModSeq => format!("HIGHESTMODSEQ {}", state.notes.highest.max(1)),
        })
        .collect();
    out.extend_from_slice(b"* STATUS ");
    describe::string(out, name.as_bytes());
    out.extend_from_slice(format!(" ({})\r\n", values.join(" ")).as_bytes());
    Ok(true)
}

pub fn create(account: &Account, name: &str, special_use: &[String]) -> Outcome {
    // A separator at the end only says that mailboxes below are to come.
    let name = name.strip_suffix(SEPARATOR).unwrap_or(name);
    let name = match folders::check_name(name) {
        Ok(name) => name,
        Err(why) => return Ok(format!("NO [CANNOT] {}", capital(why))),
    };
    if special_use.iter().any(|wanted| {
        folders::special_use(&name).is_none_or(|given| !given.eq_ignore_ascii_case(wanted))
    }) {
        return Ok(
            "NO [USEATTR] Here the name tells the use: Archive, Drafts, Junk, Sent, Trash".into(),
        );
    }
    if name == INBOX || !account.create(&name)? {
        return Ok("NO [ALREADYEXISTS] The mailbox exists".into());
    }
    Ok("OK Created".into())
}

pub fn delete(account: &Account, name: &str) -> Outcome {
    let Ok(name) = folders::check_name(name) else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    if name == INBOX {
        return Ok("NO [CANNOT] INBOX cannot be deleted".into());
    }
    let freed = octets_in(account, &name)?;
    if !account.delete(&name)? {
        return Ok(NO_SUCH_MAILBOX.into());
    }
    account.charge(-(freed as i64));
    Ok("OK Deleted".into())
}

fn octets_in(account: &Account, name: &str) -> Result<u64> {
    let Some(mailbox) = account.mailbox(name)? else {
        return Ok(0);
    };
    let mut state = mailbox.lock();
    mailbox.sync(&mut state, None)?;
    let len = |m| crate::maildir::changes::file_len(&mailbox.path_of(m), &m.base);
    Ok(state.messages.iter().map(len).sum())
}

pub fn rename(account: &Account, from: &str, to: &str) -> Outcome {
    let Ok(from) = folders::check_name(from) else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    let to = match folders::check_name(to.strip_suffix(SEPARATOR).unwrap_or(to)) {
        Ok(to) => to,
        Err(why) => return Ok(format!("NO [CANNOT] {}", capital(why))),
    };
    if from == INBOX {
        return rename_inbox(account, &to);
    }
    Ok(match account.rename(&from, &to)? {
        Renamed::Done => "OK Renamed".into(),
        Renamed::Missing => NO_SUCH_MAILBOX.into(),
        Renamed::Exists => "NO [ALREADYEXISTS] A mailbox of the new name exists".into(),
        Renamed::TooLong => "NO [CANNOT] The new name of a mailbox below is too long".into(),
    })
}

/// INBOX stays, and its messages go to a new mailbox (RFC 3501, section 6.3.5).
fn rename_inbox(account: &Account, to: &str) -> Outcome {
    if to == INBOX || !account.create(to)? {
        return Ok("NO [ALREADYEXISTS] A mailbox of the new name exists".into());
    }
    let (Some(inbox), Some(target)) = (account.mailbox(INBOX)?, account.mailbox(to)?) else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    let view = View::open(inbox, true, false, 0)?;
    let uids: Vec<u32> = view.messages().iter().map(|told| told.uid).collect();
    super::change::move_all(&view, &target, &uids)?;
    Ok("OK Renamed; INBOX is empty now".into())
}

pub fn subscribe(account: &Account, name: &str, wanted: bool) -> Outcome {
    let Ok(name) = folders::check_name(name) else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    if wanted && !account.has(&name)? {
        return Ok(NO_SUCH_MAILBOX.into());
    }
    account.subscribe(&name, wanted)?;
    Ok(if wanted {
        "OK Subscribed"
    } else {
        "OK Unsubscribed"
    }
    .into())
}

pub fn quota(account: &Account, root: &str, out: &mut Vec<u8>) -> Outcome {
    if !root.is_empty() {
        return Ok("NO [NONEXISTENT] The quota root here is \"\"".into());
    }
    quota_line(account, out)?;
    Ok("OK Quota is told".into())
}

pub fn quota_root(account: &Account, name: &str, out: &mut Vec<u8>) -> Outcome {
    let Ok(name) = folders::check_name(name) else {
        return Ok(NO_SUCH_MAILBOX.into());
    };
    if !account.has(&name)? {
        return Ok(NO_SUCH_MAILBOX.into());
    }
    out.extend_from_slice(b"* QUOTAROOT ");
    describe::string(out, name.as_bytes());
    out.extend_from_slice(b" \"\"\r\n");
    quota_line(account, out)?;
    Ok("OK Quota is told".into())
}

/// STORAGE counts in units of 1024 octets (RFC 9208).
fn quota_line(account: &Account, out: &mut Vec<u8>) -> Result<()> {
    let line = match account.quota {
        Some(quota) => {
            format!(
                "* QUOTA \"\" (STORAGE {} {})\r\n",
                account.used()?.div_ceil(1024),
                quota / 1024
            )
        }
        None => "* QUOTA \"\" ()\r\n".into(),
    };
    out.extend_from_slice(line.as_bytes());
    Ok(())
}

pub fn list(account: &Account, list: &List, out: &mut Vec<u8>) -> Outcome {
    if !list.extended && list.patterns == [""] {
        out.extend_from_slice(b"* LIST (\\Noselect) \".\" \"\"\r\n");
        return Ok("OK Listed".into());
    }
    let existing = account.list()?;
    let subscribed = account.subscriptions()?;
    // Levels above a mailbox that are none themselves are shown too.
    let mut names: BTreeSet<String> = existing.clone();
    for name in existing.iter().chain(
        list.only_subscribed
            .then_some(&subscribed)
            .into_iter()
            .flatten(),
    ) {
        names.extend(above(name).map(str::to_string));
    }
    if list.only_subscribed {
        names.extend(subscribed.iter().cloned());
    }
    let patterns: Vec<String> = list
        .patterns
        .iter()
        .map(|p| format!("{}{p}", list.reference))
        .collect();
    let matched = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));
    for name in names.iter().filter(|name| matched(name)) {
        let below = format!("{name}{SEPARATOR}");
        let wanted = !list.only_subscribed || subscribed.contains(name);
        let wanted_below = list.recursive_match
            && subscribed
                .iter()
                .any(|other| other.starts_with(&below) && !matched(other));
        let special = folders::special_use(name);
        if !(wanted || wanted_below) || list.only_special && special.is_none() {
            continue;
        }
        let mut attributes = Vec::new();
        if !existing.contains(name) {
            attributes.push(if list.extended {
                "\\NonExistent"
            } else {
                "\\Noselect"
            });
        }
        let has_children = existing.iter().any(|other| other.starts_with(&below));
        attributes.push(if has_children {
            "\\HasChildren"
        } else {
            "\\HasNoChildren"
        });
        attributes.extend(special.filter(|_| existing.contains(name)));
        if (list.only_subscribed || list.return_subscribed) && subscribed.contains(name) {
            attributes.push("\\Subscribed");
        }
        out.extend_from_slice(format!("* LIST ({}) \".\" ", attributes.join(" ")).as_bytes());
        describe::string(out, name.as_bytes());
        if wanted_below {
            out.extend_from_slice(b" (\"CHILDINFO\" (\"SUBSCRIBED\"))");
        }
        out.extend_from_slice(b"\r\n");
        if !list.return_status.is_empty() && existing.contains(name) {
            status_line(account, name, &list.return_status, out)?;
        }
    }
    Ok("OK Listed".into())
}

pub fn lsub(account: &Account, reference: &str, pattern: &str, out: &mut Vec<u8>) -> Outcome {
    let pattern = format!("{reference}{pattern}");
    let mut lines: BTreeMap<String, &str> = BTreeMap::new();
    for name in account.subscriptions()? {
        for upper in above(&name).filter(|upper| pattern.ends_with('%') && matches(&pattern, upper))
        {
            lines.entry(upper.to_string()).or_insert("\\Noselect");
        }
        if matches(&pattern, &name) {
            lines.insert(name, "");
        }
    }
    for (name, attribute) in lines {
        out.extend_from_slice(format!("* LSUB ({attribute}) \".\" ").as_bytes());
        describe::string(out, name.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    Ok("OK Listed".into())
}

/// The levels above a name: `a`, `a.b` for `a.b.c`.
fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).map(|(at, _)| &name[..at])
}

/// Whether a name is meant by a pattern, in which `*` stands for anything and `%`
/// for anything on one level. Takes the product of their lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    let is_inbox = name == INBOX;
    let name = name.as_bytes();
    // reached[n]: the pattern so far can end before the name's octet n.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for byte in pattern.bytes() {
        match byte {
            b'*' | b'%' => {
                for n in 0..name.len() {
                    let passes = byte == b'*' || name[n] != SEPARATOR as u8;
                    reached[n + 1] |= reached[n] && passes;
                }
            }
            _ => {
                for n in (0..name.len()).rev() {
                    let same = name[n] == byte || is_inbox && name[n].eq_ignore_ascii_case(&byte);
                    reached[n + 1] = reached[n] && same;
                }
                reached[0] = false;
            }
        }
    }
    reached[name.len()]
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_rfc_3501_says() {
        for (pattern, name, expected) in [
            ("*", "a.b", true),
            ("%", "a", true),
            ("%", "a.b", false),
            ("%.%", "a.b", true),
            ("a.*", "a.b.c", true),
            ("a.%", "a.b.c", false),
            ("a*c", "a.b.c", true),
            ("inbox", "INBOX", true),
            ("inb%", "INBOX", true),
            ("A", "a", false),
            ("", "a", false),
            ("%*%", "a.b", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let begun = std::time::Instant::now();
        assert!(!matches(&"*a".repeat(5000), &"a".repeat(200)));
        assert!(begun.elapsed().as_secs() < 5);
    }
}
