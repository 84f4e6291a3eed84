//! SEARCH: its keys (RFC 3501, section 6.4.4) and the options of RFC 4731.

use super::command::{Flag, Key, Returns, Search};
use super::cursor::{Cursor, Parsed};
use crate::clock::{self, Day};
use crate::maildir::name::Flags;

/// NOT and OR and parentheses inside of each other.
const MAX_DEPTH: usize = 40;

pub fn search(cursor: &mut Cursor, uid: bool) -> Parsed<Search> {
    let mut search = Search {
        uid,
        ..Search::default()
    };
    cursor.space()?;
    let start = cursor.at;
    if cursor.word() == "RETURN" {
        cursor.space()?;
        search.returns = Some(returns(cursor)?);
        cursor.space()?;
    } else {
        cursor.at = start;
    }
    let start = cursor.at;
    if cursor.word() == "CHARSET" {
        search.charset = Some(cursor.argument()?.to_ascii_uppercase());
        cursor.space()?;
    } else {
        cursor.at = start;
    }
    loop {
        search.keys.push(key(cursor, 0)?);
        if !cursor.take(b' ') {
            return Ok(search);
        }
    }
}

fn returns(cursor: &mut Cursor) -> Parsed<Returns> {
    let mut returns = Returns::default();
    cursor.expect(b'(')?;
    while !cursor.take(b')') {
        cursor.take(b' ');
        match cursor.word().as_str() {
            "MIN" => returns.min = true,
            "MAX" => returns.max = true,
            "ALL" => returns.all = true,
            "COUNT" => returns.count = true,
            other => return Err(format!("SEARCH has no return option {other:?}")),
        }
    }
    if returns == Returns::default() {
        returns.all = true;
    }
    Ok(returns)
}

fn key(cursor: &mut Cursor, depth: usize) -> Parsed<Key> {
    if depth > MAX_DEPTH {
        return Err(format!("A search is deeper than {MAX_DEPTH}"));
    }
    if cursor.take(b'(') {
        let mut keys = Vec::new();
        loop {
            keys.push(key(cursor, depth + 1)?);
            if cursor.take(b')') {
                return Ok(Key::And(keys));
            }
            cursor.space()?;
        }
    }
    if cursor
        .peek()
        .is_some_and(|byte| byte.is_ascii_digit() || byte == b'*')
    {
        return Ok(Key::Numbers(cursor.set()?));
    }
    let word = cursor.word();
    let system = |flag, set| Ok(Key::Flag(Flag::System(flag), set));
    match word.as_str() {
        "ALL" => Ok(Key::All),
        "ANSWERED" => system(Flags::ANSWERED, true),
        "DELETED" => system(Flags::DELETED, true),
        "DRAFT" => system(Flags::DRAFT, true),
        "FLAGGED" => system(Flags::FLAGGED, true),
        "SEEN" => system(Flags::SEEN, true),
        "UNANSWERED" => system(Flags::ANSWERED, false),
        "UNDELETED" => system(Flags::DELETED, false),
        "UNDRAFT" => system(Flags::DRAFT, false),
        "UNFLAGGED" => system(Flags::FLAGGED, false),
        "UNSEEN" => system(Flags::SEEN, false),
        "NEW" => Ok(Key::New),
        "OLD" => Ok(Key::Old),
        "RECENT" => Ok(Key::Recent),
        "KEYWORD" => Ok(Key::Flag(Flag::Keyword(cursor.argument()?), true)),
        "UNKEYWORD" => Ok(Key::Flag(Flag::Keyword(cursor.argument()?), false)),
        "BEFORE" => Ok(Key::Before(day(cursor)?)),
        "ON" => Ok(Key::On(day(cursor)?)),
        "SINCE" => Ok(Key::Since(day(cursor)?)),
        "SENTBEFORE" => Ok(Key::SentBefore(day(cursor)?)),
        "SENTON" => Ok(Key::SentOn(day(cursor)?)),
        "SENTSINCE" => Ok(Key::SentSince(day(cursor)?)),
        "LARGER" => Ok(Key::Larger(spaced_number(cursor)?)),
        "SMALLER" => Ok(Key::Smaller(spaced_number(cursor)?)),
        "BCC" | "CC" | "FROM" | "SUBJECT" | "TO" => Ok(Key::Header(word, octets(cursor)?)),
        "HEADER" => {
            let name = cursor.argument()?;
            Ok(Key::Header(name, octets(cursor)?))
        }
        "BODY" => Ok(Key::Body(octets(cursor)?)),
        "TEXT" => Ok(Key::Text(octets(cursor)?)),
        "UID" => {
            cursor.space()?;
            Ok(Key::Uids(cursor.set()?))
        }
        "MODSEQ" => {
            cursor.space()?;
            if cursor.peek() == Some(b'"') {
                // The name of a flag and who set it: here a flag has no history of its own.
                cursor.quoted()?;
                cursor.space()?;
                cursor.word();
                cursor.space()?;
            }
            Ok(Key::ModSeq(cursor.number()?))
        }
        "NOT" => {
            cursor.space()?;
            Ok(Key::Not(Box::new(key(cursor, depth + 1)?)))
        }
        "OR" => {
            cursor.space()?;
            let first = key(cursor, depth + 1)?;
            cursor.space()?;
            Ok(Key::Or(Box::new(first), Box::new(key(cursor, depth + 1)?)))
        }
        other => Err(format!("SEARCH has no key {other:?}")),
    }
}

fn octets(cursor: &mut Cursor) -> Parsed<Vec<u8>> {
    cursor.space()?;
    cursor.astring()
}

fn spaced_number(cursor: &mut Cursor) -> Parsed<u64> {
    cursor.space()?;
    cursor.number()
}

fn day(cursor: &mut Cursor) -> Parsed<Day> {
    let text = cursor.argument()?;
    clock::parse_imap_day(&text).ok_or_else(|| format!("{text:?} is no date like 1-Feb-2026"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::command::Command;
    use crate::imap::parse::command;

    fn parsed(line: &str) -> Result<Search, String> {
        match command(format!("a SEARCH {line}\r\n").as_bytes()) {
            Ok((_, Command::Search(search))) => Ok(search),
            Ok(other) => panic!("{other:?}"),
            Err(bad) => Err(bad.text),
        }
    }

    #[test]
    fn keys_nest() {
        let search =
            parsed("RETURN (MIN COUNT) CHARSET utf-8 1:3 OR (SEEN LARGER 5) NOT FROM {1}\r\nx")
                .unwrap();
        assert_eq!(search.charset.as_deref(), Some("UTF-8"));
        assert!(search.returns.unwrap().min && !search.returns.unwrap().all);
        assert_eq!(search.keys.len(), 2);
        assert!(
            matches!(&search.keys[1], Key::Or(_, not) if **not == Key::Not(Box::new(Key::Header("FROM".into(), b"x".to_vec()))))
        );
        assert!(parsed("RETURN () ALL").unwrap().returns.unwrap().all);
    }

    #[test]
    fn wrong_and_deep_searches_are_refused() {
        for wrong in [
            "",
            "FOO",
            "OR SEEN",
            "(SEEN",
            "SINCE 1-Foo-2020",
            "LARGER x",
            "RETURN (FOO) ALL",
            "HEADER x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert!(
            parsed(&format!("{}SEEN", "NOT ".repeat(10_000)))
                .unwrap_err()
                .contains("deeper")
        );
        assert!(parsed(&"(".repeat(10_000)).is_err());
    }
}
