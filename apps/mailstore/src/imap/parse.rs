//! The grammar of commands (RFC 3501, section 9, and the extensions).

use crate::clock;
use crate::imap::command::{Command, List, Search, StatusItem, Store};
use crate::imap::cursor::{Cursor, Parsed, is_atom_char, is_tag_char};
use crate::maildir::changes::Combine;

/// Why a command was not understood, for the client to read.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad {
    pub tag: String,
    pub text: String,
}

/// Reads a command with its tag.
pub fn command(input: &[u8]) -> Result<(String, Command), Bad> {
    let mut cursor = Cursor::new(input);
    let tag = cursor.while_(is_tag_char);
    if tag.is_empty() {
        return Err(Bad {
            tag: "*".into(),
            text: "A command begins with a tag".into(),
        });
    }
    let tag = String::from_utf8_lossy(tag).into_owned();
    match body(&mut cursor) {
        Ok(command) => Ok((tag, command)),
        Err(text) => Err(Bad { tag, text }),
    }
}

fn body(cursor: &mut Cursor) -> Parsed<Command> {
    cursor.space()?;
    let name = cursor.word();
    let (uid, name) = if name == "UID" {
        cursor.space()?;
        (true, cursor.word())
    } else {
        (false, name)
    };
    let command = match (name.as_str(), uid) {
        ("FETCH", _) => super::parse_fetch::fetch(cursor, uid)?,
        ("STORE", _) => store(cursor, uid)?,
        ("SEARCH", _) => search(cursor, uid)?,
        ("COPY", _) => copy(cursor, uid, false)?,
        ("MOVE", _) => copy(cursor, uid, true)?,
        ("EXPUNGE", true) => {
            cursor.space()?;
            Command::Expunge(Some(cursor.set()?))
        }
        (other, true) => return Err(format!("UID does not go with {other:?}")),
        ("CAPABILITY", _) => Command::Capability,
        ("NOOP", _) => Command::Noop,
        ("LOGOUT", _) => Command::Logout,
        ("STARTTLS", _) => Command::StartTls,
        ("NAMESPACE", _) => Command::Namespace,
        ("CHECK", _) => Command::Check,
        ("CLOSE", _) => Command::Close,
        ("UNSELECT", _) => Command::Unselect,
        ("EXPUNGE", _) => Command::Expunge(None),
        ("IDLE", _) => Command::Idle,
        ("ID", _) => {
            cursor.to_end();
            return Ok(Command::Id);
        }
        ("AUTHENTICATE", _) => authenticate(cursor)?,
        ("LOGIN", _) => {
            cursor.space()?;
            let user = cursor.text()?;
            cursor.space()?;
            Command::Login {
                user,
                password: cursor.text()?,
            }
        }
        ("ENABLE", _) => {
            let mut names = Vec::new();
            while cursor.take(b' ') {
                names.push(cursor.word());
            }
            Command::Enable(names)
        }
        ("SELECT", _) => select(cursor, false)?,
        ("EXAMINE", _) => select(cursor, true)?,
        ("CREATE", _) => create(cursor)?,
        ("DELETE", _) => Command::Delete(cursor.argument()?),
        ("RENAME", _) => Command::Rename {
            from: cursor.argument()?,
            to: cursor.argument()?,
        },
        ("SUBSCRIBE", _) => Command::Subscribe(cursor.argument()?),
        ("UNSUBSCRIBE", _) => Command::Unsubscribe(cursor.argument()?),
        ("LIST", _) => list(cursor)?,
        ("LSUB", _) => {
            let reference = cursor.argument()?;
            cursor.space()?;
            Command::Lsub {
                reference,
                pattern: cursor.pattern()?,
            }
        }
        ("STATUS", _) => {
            let mailbox = cursor.argument()?;
            cursor.space()?;
            Command::Status {
                mailbox,
                items: status_items(cursor)?,
            }
        }
        ("APPEND", _) => append(cursor)?,
        ("GETQUOTA", _) => Command::GetQuota(cursor.argument()?),
        ("GETQUOTAROOT", _) => Command::GetQuotaRoot(cursor.argument()?),
        ("", _) => return Err("A command is missing behind the tag".into()),
        (other, _) => return Err(format!("There is no command {other:?}")),
    };
    cursor.end()?;
    Ok(command)
}

fn authenticate(cursor: &mut Cursor) -> Parsed<Command> {
    cursor.space()?;
    let mechanism = cursor.word();
    let initial = if cursor.take(b' ') {
        let word = cursor.while_(|byte| !byte.is_ascii_whitespace());
        Some(if word == b"=" {
            Vec::new()
        } else {
            word.to_vec()
        })
    } else {
        None
    };
    Ok(Command::Authenticate { mechanism, initial })
}

fn select(cursor: &mut Cursor, read_only: bool) -> Parsed<Command> {
    let mailbox = cursor.argument()?;
    let mut condstore = false;
    if cursor.take(b' ') {
        cursor.expect(b'(')?;
        loop {
            match cursor.word().as_str() {
                "CONDSTORE" => condstore = true,
                other => return Err(format!("SELECT has no parameter {other:?} here")),
            }
            if !cursor.take(b' ') {
                break;
            }
        }
        cursor.expect(b')')?;
    }
    Ok(Command::Select {
        mailbox,
        read_only,
        condstore,
    })
}

fn create(cursor: &mut Cursor) -> Parsed<Command> {
    let mailbox = cursor.argument()?;
    let mut special_use = Vec::new();
    if cursor.take(b' ') {
        cursor.expect(b'(')?;
        if cursor.word() != "USE" {
            return Err("CREATE has no parameter but USE".into());
        }
        cursor.space()?;
        cursor.expect(b'(')?;
        while !cursor.take(b')') {
            cursor.take(b' ');
            cursor.expect(b'\\')?;
            special_use.push(format!(
                "\\{}",
                String::from_utf8_lossy(cursor.while_(is_atom_char))
            ));
        }
        cursor.expect(b')')?;
    }
    Ok(Command::Create {
        mailbox,
        special_use,
    })
}

fn list(cursor: &mut Cursor) -> Parsed<Command> {
    let mut list = List::default();
    cursor.space()?;
    if cursor.take(b'(') {
        list.extended = true;
        for option in words_to_close(cursor)? {
            match option.as_str() {
                "SUBSCRIBED" => list.only_subscribed = true,
                "SPECIAL-USE" => list.only_special = true,
                "RECURSIVEMATCH" => list.recursive_match = true,
                "REMOTE" => {}
                other => return Err(format!("LIST has no selection option {other:?}")),
            }
        }
        if list.recursive_match && !list.only_subscribed {
            return Err("RECURSIVEMATCH needs another selection option".into());
        }
        cursor.space()?;
    }
    list.reference = cursor.text()?;
    cursor.space()?;
    if cursor.take(b'(') {
        list.extended = true;
        loop {
            list.patterns.push(cursor.pattern()?);
            if !cursor.take(b' ') {
                break;
            }
        }
        cursor.expect(b')')?;
    } else {
        list.patterns.push(cursor.pattern()?);
    }
    if cursor.take(b' ') {
        if cursor.word() != "RETURN" {
            return Err("Behind the pattern of LIST only RETURN can stand".into());
        }
        list.extended = true;
        cursor.space()?;
        cursor.expect(b'(')?;
        while !cursor.take(b')') {
            cursor.take(b' ');
            match cursor.word().as_str() {
                "SUBSCRIBED" => list.return_subscribed = true,
                "CHILDREN" | "SPECIAL-USE" => {} // are told always
                "STATUS" => {
                    cursor.space()?;
                    list.return_status = status_items(cursor)?;
                }
                other => return Err(format!("LIST has no return option {other:?}")),
            }
        }
    }
    Ok(Command::List(list))
}

/// Words up to a closing parenthesis, the opening one being read.
fn words_to_close(cursor: &mut Cursor) -> Parsed<Vec<String>> {
    let mut words = Vec::new();
    while !cursor.take(b')') {
        if !words.is_empty() {
            cursor.space()?;
        }
        let word = cursor.word();
        if word.is_empty() {
            return Err(cursor.wrong("a word"));
        }
        words.push(word);
    }
    Ok(words)
}

fn status_items(cursor: &mut Cursor) -> Parsed<Vec<StatusItem>> {
    cursor.expect(b'(')?;
    let mut items = Vec::new();
    for word in words_to_close(cursor)? {
        items.push(match word.as_str() {
            "MESSAGES" => StatusItem::Messages,
            "RECENT" => StatusItem::Recent,
            "UIDNEXT" => StatusItem::UidNext,
            "UIDVALIDITY" => StatusItem::UidValidity,
            "UNSEEN" => StatusItem::Unseen,
            "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            other => return Err(format!("STATUS has no item {other:?}")),
        });
    }
    if items.is_empty() {
        return Err("STATUS needs at least one item".into());
    }
    Ok(items)
}

fn append(cursor: &mut Cursor) -> Parsed<Command> {
    let mailbox = cursor.argument()?;
    cursor.space()?;
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        flags = cursor.flag_list()?;
        cursor.space()?;
    }
    let mut date = None;
    if cursor.peek() == Some(b'"') {
        let text = String::from_utf8_lossy(&cursor.quoted()?).into_owned();
        let time = clock::parse_imap(&text).ok_or_else(|| format!("{text:?} is no date-time"))?;
        date = Some(time);
        cursor.space()?;
    }
    Ok(Command::Append {
        mailbox,
        flags,
        date,
        text: cursor.literal()?,
    })
}

fn store(cursor: &mut Cursor, uid: bool) -> Parsed<Command> {
    cursor.space()?;
    let set = cursor.set()?;
    cursor.space()?;
    let mut unchanged_since = None;
    if cursor.take(b'(') {
        if cursor.word() != "UNCHANGEDSINCE" {
            return Err("STORE has no modifier but UNCHANGEDSINCE".into());
        }
        cursor.space()?;
        unchanged_since = Some(cursor.number()?);
        cursor.expect(b')')?;
        cursor.space()?;
    }
    let combine = match cursor.peek() {
        Some(b'+') => Combine::Add,
        Some(b'-') => Combine::Remove,
        _ => Combine::Replace,
    };
    if combine != Combine::Replace {
        cursor.at += 1;
    }
    let silent = match cursor.word().as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        other => return Err(format!("STORE changes FLAGS and not {other:?}")),
    };
    cursor.space()?;
    let flags = if cursor.peek() == Some(b'(') {
        cursor.flag_list()?
    } else {
        let mut flags = vec![cursor.flag()?];
        while cursor.take(b' ') {
            flags.push(cursor.flag()?);
        }
        flags.into_iter().flatten().collect()
    };
    Ok(Command::Store(Store {
        uid,
        set,
        combine,
        silent,
        flags,
        unchanged_since,
    }))
}

fn search(cursor: &mut Cursor, uid: bool) -> Parsed<Command> {
    let search: Search = super::parse_search::search(cursor, uid)?;
    Ok(Command::Search(search))
}

fn copy(cursor: &mut Cursor, uid: bool, moves: bool) -> Parsed<Command> {
    cursor.space()?;
    let set = cursor.set()?;
    Ok(Command::Copy {
        uid,
        set,
        mailbox: cursor.argument()?,
        moves,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        command(line.as_bytes())
            .unwrap_or_else(|bad| panic!("{line}: {bad:?}"))
            .1
    }

    #[test]
    fn strings_come_in_three_shapes() {
        let Command::Login { user, password } = parsed("a LOGIN \"a \\\"b\" {3+}\r\np w\r\n")
        else {
            panic!()
        };
        assert_eq!((user.as_str(), password.as_str()), ("a \"b", "p w"));
        let Command::Append {
            mailbox,
            flags,
            date,
            text,
        } = parsed("a APPEND INBOX (\\Seen $x) \" 1-Jan-2020 00:00:00 +0000\" {4}\r\na\r\nb\r\n")
        else {
            panic!()
        };
        assert_eq!(
            (mailbox.as_str(), flags.len(), date.is_some(), &text[..]),
            ("INBOX", 2, true, &b"a\r\nb"[..])
        );
    }

    #[test]
    fn sets_and_stores() {
        let Command::Store(store) =
            parsed("a UID STORE 1:3,7,*:9 (UNCHANGEDSINCE 12) +FLAGS.SILENT \\Seen x\r\n")
        else {
            panic!()
        };
        assert!(store.uid && store.silent && store.combine == Combine::Add);
        assert!(store.set.has(2, 20) && store.set.has(15, 20) && !store.set.has(8, 20));
        assert_eq!(store.flags.len(), 2);
    }

    #[test]
    fn wrong_commands_are_told_with_the_place() {
        for (line, part) in [
            ("", "tag"),
            ("a", "space"),
            ("a ", "missing"),
            ("a FOO", "\"FOO\""),
            ("a UID NOOP", "UID"),
            ("a LOGIN x", "at the end"),
            ("a STORE 0 FLAGS ()", "begin with 1"),
            ("a STORE 1 FLAGS (\\Foo)", "\\Foo"),
            ("a FETCH 1:99999999999 FLAGS", "32 bits"),
            ("a LOGIN \"x", "no end"),
            ("a LOGIN {99}\r\nx y", "shorter"),
            ("a NOOP x", "end of the command"),
            ("a SELECT \"\\x\"", "escapes"),
            ("a LIST (RECURSIVEMATCH) \"\" *", "RECURSIVEMATCH"),
            ("a STORE 1 FLAGS (", "a flag"),
            ("a CREATE x (USE (", "'\\\\'"),
            ("a LIST \"\" * RETURN (", "return option"),
        ] {
            let text = command(line.as_bytes()).unwrap_err().text;
            assert!(text.contains(part), "{line:?}: {text}");
        }
    }
}
