//! FETCH: its items, sections and modifiers.

use super::command::{Command, Fetch, Item, SectionName};
use super::cursor::{Cursor, Parsed};
use crate::message::section::{Section, What};

/// More items in one command than this are a mistake or worse.
const MAX_ITEMS: usize = 200;

pub fn fetch(cursor: &mut Cursor, uid: bool) -> Parsed<Command> {
    cursor.space()?;
    let set = cursor.set()?;
    cursor.space()?;
    let mut items = Vec::new();
    if cursor.take(b'(') {
        loop {
            item(cursor, &mut items)?;
            if cursor.take(b')') {
                break;
            }
            cursor.space()?;
        }
    } else {
        item(cursor, &mut items)?;
    }
    let mut changed_since = None;
    if cursor.take(b' ') {
        cursor.expect(b'(')?;
        if cursor.word() != "CHANGEDSINCE" {
            return Err("FETCH has no modifier but CHANGEDSINCE".into());
        }
        cursor.space()?;
        changed_since = Some(cursor.number()?);
        cursor.expect(b')')?;
        add(&mut items, Item::ModSeq)?;
    }
    if uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    Ok(Command::Fetch(Fetch {
        uid,
        set,
        items,
        changed_since,
    }))
}

fn add(items: &mut Vec<Item>, item: Item) -> Parsed<()> {
    if items.len() >= MAX_ITEMS {
        return Err(format!("FETCH has more than {MAX_ITEMS} items"));
    }
    if !items.contains(&item) {
        items.push(item);
    }
    Ok(())
}

fn item(cursor: &mut Cursor, items: &mut Vec<Item>) -> Parsed<()> {
    let whole = |what, name, peek| Item::Section {
        section: Section {
            path: Vec::new(),
            what,
        },
        partial: None,
        peek,
        name,
    };
    let several: &[Item] = match cursor.word().as_str() {
        "ALL" => &[Item::Flags, Item::InternalDate, Item::Size, Item::Envelope],
        "FAST" => &[Item::Flags, Item::InternalDate, Item::Size],
        "FULL" => &[
            Item::Flags,
            Item::InternalDate,
            Item::Size,
            Item::Envelope,
            Item::Body,
        ],
        "FLAGS" => &[Item::Flags],
        "UID" => &[Item::Uid],
        "INTERNALDATE" => &[Item::InternalDate],
        "RFC822.SIZE" => &[Item::Size],
        "ENVELOPE" => &[Item::Envelope],
        "BODYSTRUCTURE" => &[Item::BodyStructure],
        "MODSEQ" => &[Item::ModSeq],
        "RFC822" => return add(items, whole(What::All, SectionName::Rfc822, false)),
        "RFC822.HEADER" => return add(items, whole(What::Header, SectionName::Rfc822Header, true)),
        "RFC822.TEXT" => return add(items, whole(What::Text, SectionName::Rfc822Text, false)),
        "BODY" if cursor.peek() != Some(b'[') => &[Item::Body],
        "BODY" => return add(items, section(cursor, false)?),
        "BODY.PEEK" => return add(items, section(cursor, true)?),
        other => return Err(format!("FETCH has no item {other:?}")),
    };
    several.iter().try_for_each(|item| add(items, item.clone()))
}

fn section(cursor: &mut Cursor, peek: bool) -> Parsed<Item> {
    cursor.expect(b'[')?;
    let mut path = Vec::new();
    let mut what = What::All;
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        match cursor.number32()? {
            0 => return Err("Parts of a message are numbered from 1".into()),
            number => path.push(number),
        }
        if path.len() > 100 {
            return Err("A section has more than 100 levels".into());
        }
        if !cursor.take(b'.') {
            break;
        }
    }
    if cursor.peek() != Some(b']') {
        what = match cursor.word().as_str() {
            "HEADER" => What::Header,
            "TEXT" => What::Text,
            "MIME" if !path.is_empty() => What::Mime,
            "HEADER.FIELDS" => What::Fields(names(cursor)?),
            "HEADER.FIELDS.NOT" => What::FieldsNot(names(cursor)?),
            other => return Err(format!("There is no section {other:?}")),
        };
    }
    cursor.expect(b']')?;
    let mut partial = None;
    if cursor.take(b'<') {
        let from = cursor.number()?;
        cursor.expect(b'.')?;
        let len = cursor.number()?;
        if len == 0 {
            return Err("A part of a section has at least one octet".into());
        }
        cursor.expect(b'>')?;
        partial = Some((from, len));
    }
    let section = Section { path, what };
    Ok(Item::Section {
        section,
        partial,
        peek,
        name: SectionName::Body,
    })
}

fn names(cursor: &mut Cursor) -> Parsed<Vec<String>> {
    cursor.space()?;
    cursor.expect(b'(')?;
    let mut names = Vec::new();
    loop {
        names.push(cursor.text()?.to_ascii_uppercase());
        if cursor.take(b')') {
            return Ok(names);
        }
        cursor.space()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::parse::command;

    fn items(line: &str) -> Result<Vec<Item>, String> {
        match command(format!("a FETCH 1 {line}\r\n").as_bytes()) {
            Ok((_, Command::Fetch(fetch))) => Ok(fetch.items),
            Ok(other) => panic!("{other:?}"),
            Err(bad) => Err(bad.text),
        }
    }

    #[test]
    fn sections_of_every_kind() {
        let all = items(
            "(UID BODY.PEEK[HEADER.FIELDS (Subject \"X Y\")] BODY[1.2.MIME]<5.10> body RFC822.TEXT)",
        );
        let all = all.unwrap();
        assert_eq!(all.len(), 5);
        let Item::Section { section, peek, .. } = &all[1] else {
            panic!()
        };
        assert!(*peek && section.name() == "HEADER.FIELDS (SUBJECT \"X Y\")");
        let Item::Section {
            section,
            partial,
            peek,
            ..
        } = &all[2]
        else {
            panic!()
        };
        assert!(!peek && section.name() == "1.2.MIME" && *partial == Some((5, 10)));
        assert_eq!(items("FAST").unwrap().len(), 3);
        assert_eq!(
            items("FLAGS (CHANGEDSINCE 5)").unwrap(),
            [Item::Flags, Item::ModSeq]
        );
    }

    #[test]
    fn wrong_sections_are_refused() {
        for wrong in [
            "BODY[",
            "BODY[0]",
            "BODY[MIME]",
            "BODY[1.]x",
            "BODY[]<1.0>",
            "BODY[]<1>",
            "(FLAGS",
            "()",
            "BODY[HEADER.FIELDS ()]",
            "FLAGS (CHANGEDSINCE x)",
            "BODY[1.FOO]",
        ] {
            assert!(items(wrong).is_err(), "{wrong}");
        }
    }
}
