//! Commands on messages: append, fetch, store, copy, move, expunge.

use std::io;

use super::commands::{numbers_of, ok};
use super::{Client, Reply};
use crate::bytes::Bytes;
use crate::imap::token::{self, Token};
use crate::names::{self, Folder, Message};
use crate::notices;
use crate::store;
use crate::verbs::{Act, split_items};

/// Names and values of what a FETCH has shown of a message.
type Items = Vec<(String, Token)>;

impl Client {
    pub(super) fn append(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
        let folder = match self.folder(user, arguments.first()) {
            Ok(folder) => folder,
            Err(why) => return Ok(Err(why)),
        };
        let mut rest = &arguments[1..];
        let flags = match rest.first() {
            Some(Token::List(list)) => {
                rest = &rest[1..];
                flags_of(list)
            }
            _ => Ok(String::new()),
        };
        let flags = match flags {
            Ok(flags) => flags,
            Err(why) => return Ok(Err(why)),
        };
        let date = match rest {
            [Token::Quoted(date), _] => {
                rest = &rest[1..];
                String::from_utf8_lossy(date).into_owned()
            }
            // The same time at each replay.
            _ => notices::imap_date(undo::when::now_us()),
        };
        if date.contains(['"', '\\', '\r', '\n']) {
            return Ok(Err("BAD this is no date".into()));
        }
        let [Token::Literal(body)] = rest else {
            return Ok(Err(
                "BAD the form is APPEND folder [(flags)] [date] {n}".into()
            ));
        };
        let id = names::fresh();
        let body = Bytes(names::without_id(body));
        let act = Act::Append {
            folder: folder.clone(),
            id,
            flags,
            date,
            body,
        };
        let answer = self.submit(user, act)?;
        if let Err(why) = answer {
            // A folder that is not there may be created (RFC 3501, 6.3.11).
            let missing = why.contains("TRYCREATE") || why.to_lowercase().contains("exist");
            let code = if missing && !why.starts_with('[') {
                "[TRYCREATE] "
            } else {
                ""
            };
            return Ok(Err(format!("{code}{why}")));
        }
        let code = self
            .uid_code(user, &folder, &[id])?
            .map(|(validity, set)| format!("[APPENDUID {validity} {set}] "));
        self.refresh()?;
        ok(&format!("{}done", code.unwrap_or_default()))
    }

    /// The UIDs that messages with these UndoIDs got in a folder.
    pub(super) fn uid_code(
        &self,
        user: &str,
        folder: &Folder,
        ids: &[u64],
    ) -> io::Result<Option<(u32, String)>> {
        let store = self.manager.service();
        let listing = self.manager.look(|_| {
            let _turn = store.turns.look(user);
            let name = store.factory.name(user, folder).ok().flatten()?;
            store
                .pool
                .within(user, &name, true, |_, l| Ok(l.clone()))
                .ok()
        });
        let Some(listing) = listing else {
            return Ok(None);
        };
        let shown = self.number(user, folder.id, listing.into_iter().map(|(_, m)| m))?;
        // The newest message with an UndoID is the one that has just come.
        let found: Option<Vec<u32>> = ids
            .iter()
            .map(|id| {
                shown
                    .iter()
                    .rev()
                    .find(|(_, m)| m.id == *id)
                    .map(|(uid, _)| *uid)
            })
            .collect();
        let numbers = self.uids.of(user, folder.id)?;
        let validity = numbers
            .lock()
            .unwrap_or_else(|p| p.into_inner())
            .uid_validity;
        Ok(found.filter(|uids| !uids.is_empty()).map(|uids| {
            let all: Vec<String> = uids.iter().map(u32::to_string).collect();
            (validity, all.join(","))
        }))
    }

    pub(super) fn fetch(
        &mut self,
        user: &str,
        arguments: &[Token],
        by_uid: bool,
    ) -> io::Result<Reply> {
        let [set, items] = arguments else {
            return Ok(Err("BAD the form is FETCH set items".into()));
        };
        let chosen = match self.chosen(set, by_uid) {
            Ok(chosen) => chosen,
            Err(why) => return Ok(Err(why)),
        };
        let items = match items_of(items) {
            Ok(items) => items,
            Err(why) => return Ok(Err(why)),
        };
        if chosen.is_empty() {
            return ok("nothing to fetch");
        }
        let Some(view) = &self.view else {
            return ok("done");
        };
        let wants_uid = by_uid || items.iter().any(|i| i.eq_ignore_ascii_case("UID"));
        let wants_flags = items.iter().any(|i| i.eq_ignore_ascii_case("FLAGS"));
        let asked: Vec<&String> = items
            .iter()
            .filter(|i| !i.eq_ignore_ascii_case("UID"))
            .collect();
        let messages: Vec<Message> = chosen.iter().map(|(_, _, m)| *m).collect();
        let folder = view.folder.clone();
        let line = asked
            .iter()
            .map(|i| i.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        let line = if view.read_only {
            peek_all(&line)
        } else {
            line
        };
        let fetched = if asked.is_empty() {
            Ok(messages.iter().map(|m| (*m, Vec::new())).collect())
        } else if asked.iter().any(|item| shows_text(item)) {
            self.submit(
                user,
                Act::Fetch {
                    folder,
                    messages,
                    items: line,
                },
            )?
            .map(|a| a.fetched)
        } else {
            // Flags, sizes and dates are not part of what must be consistent.
            let store = self.manager.service();
            self.manager.look(|_| {
                let _turn = store.turns.look(user);
                let name = store
                    .factory
                    .name(user, &folder)
                    .ok()
                    .flatten()
                    .ok_or("the folder has gone")?;
                store
                    .pool
                    .within(user, &name, true, |s, l| {
                        store::fetch_messages(s, l, &messages, &line)
                    })
                    .map_err(|e| e.to_string())
            })
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(why) => return Ok(Err(why)),
        };
        let places = self.sequence_of();
        let mut lines: Vec<(u32, u32, Items)> = fetched
            .into_iter()
            .filter_map(|(m, items)| {
                places
                    .get(&m)
                    .map(|&(sequence, uid)| (sequence, uid, items))
            })
            .collect();
        lines.sort_by_key(|(sequence, ..)| *sequence);
        for (sequence, uid, items) in lines {
            let mut list = Vec::new();
            if wants_uid {
                list.push(Token::Atom(b"UID".to_vec()));
                list.push(Token::Atom(uid.to_string().into_bytes()));
            }
            for (name, value) in items {
                // Flags that were set by the fetch itself are told too (RFC 3501, 6.4.5).
                let unasked = name == "FLAGS" && !wants_flags && !line_marks(&asked);
                if name != "UID" && !unasked {
                    list.push(Token::Atom(name.into_bytes()));
                    list.push(value);
                }
            }
            let number = Token::Atom(sequence.to_string().into_bytes());
            self.write_tokens(&[number, Token::Atom(b"FETCH".to_vec()), Token::List(list)])?;
        }
        ok("done")
    }

    pub(super) fn store(
        &mut self,
        user: &str,
        arguments: &[Token],
        by_uid: bool,
    ) -> io::Result<Reply> {
        let form = "BAD the form is STORE set [+|-]FLAGS[.SILENT] flags";
        let [set, how, flags @ ..] = arguments else {
            return Ok(Err(form.into()));
        };
        let word = how.word().unwrap_or_default();
        let (how, silent) = match word.strip_suffix(".SILENT") {
            Some(how) => (how.to_owned(), true),
            None => (word, false),
        };
        if !["FLAGS", "+FLAGS", "-FLAGS"].contains(&how.as_str()) {
            return Ok(Err(form.into()));
        }
        let flags = match flags {
            [Token::List(list)] => flags_of(list),
            list => flags_of(list),
        };
        let (chosen, flags) = match (self.chosen(set, by_uid), flags) {
            (Ok(chosen), Ok(flags)) => (chosen, flags),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let Some(view) = self.view.as_ref().filter(|_| !chosen.is_empty()) else {
            return ok("nothing to store");
        };
        let folder = view.folder.clone();
        let messages: Vec<Message> = chosen.iter().map(|(_, _, m)| *m).collect();
        if let Err(why) = self.submit(
            user,
            Act::Store {
                folder,
                messages,
                how,
                flags,
            },
        )? {
            return Ok(Err(why));
        }
        if silent {
            return ok("done");
        }
        let items = if by_uid { "(FLAGS UID)" } else { "(FLAGS)" };
        let items = token::parse(items.as_bytes()).unwrap_or_default();
        let uids: Vec<u32> = chosen.iter().map(|(_, uid, _)| *uid).collect();
        let set = Token::Atom(token::show_set(&uids).into_bytes());
        if by_uid {
            return self.fetch(user, &[set, items[0].clone()], true);
        }
        let sequence: Vec<u32> = chosen.iter().map(|(sequence, ..)| *sequence).collect();
        let set = Token::Atom(token::show_set(&sequence).into_bytes());
        self.fetch(user, &[set, items[0].clone()], false)
    }

    pub(super) fn copy(
        &mut self,
        user: &str,
        arguments: &[Token],
        by_uid: bool,
        moves: bool,
    ) -> io::Result<Reply> {
        let [set, target] = arguments else {
            return Ok(Err("BAD the form is COPY set folder".into()));
        };
        let (chosen, to) = match (self.chosen(set, by_uid), self.folder(user, Some(target))) {
            (Ok(chosen), Ok(to)) => (chosen, to),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let Some(view) = self.view.as_ref().filter(|_| !chosen.is_empty()) else {
            return ok("nothing to copy");
        };
        let folder = view.folder.clone();
        let messages: Vec<Message> = chosen.iter().map(|(_, _, m)| *m).collect();
        let ids: Vec<u64> = messages.iter().map(|m| m.id).collect();
        let act = match moves {
            true => Act::Move {
                folder,
                messages,
                to: to.clone(),
            },
            false => Act::Copy {
                folder,
                messages,
                to: to.clone(),
            },
        };
        if let Err(why) = self.submit(user, act)? {
            let missing = why.contains("TRYCREATE") || why.to_lowercase().contains("exist");
            let code = if missing && !why.starts_with('[') {
                "[TRYCREATE] "
            } else {
                ""
            };
            return Ok(Err(format!("{code}{why}")));
        }
        let code = self.uid_code(user, &to, &ids)?.map(|(validity, set)| {
            let from: Vec<String> = chosen.iter().map(|(_, uid, _)| uid.to_string()).collect();
            format!("[COPYUID {validity} {} {set}]", from.join(","))
        });
        if moves {
            if let Some(code) = &code {
                self.write(&format!("* OK {code} moved"))?;
            }
            self.refresh()?;
            return ok("done");
        }
        ok(format!("{} done", code.unwrap_or_default()).trim_start())
    }

    pub(super) fn expunge(
        &mut self,
        user: &str,
        arguments: &[Token],
        by_uid: bool,
    ) -> io::Result<Reply> {
        let mut messages = match self.deleted(user)? {
            Ok(messages) => messages,
            Err(why) => return Ok(Err(why)),
        };
        if by_uid {
            let Some(set) = arguments.first() else {
                return Ok(Err("BAD a set of messages is missing".into()));
            };
            match self.chosen(set, true) {
                Ok(chosen) => messages.retain(|m| chosen.iter().any(|(_, _, c)| c == m)),
                Err(why) => return Ok(Err(why)),
            }
        }
        if let Some(view) = self.view.as_ref().filter(|_| !messages.is_empty()) {
            let folder = view.folder.clone();
            if let Err(why) = self.submit(user, Act::Expunge { folder, messages })? {
                return Ok(Err(why));
            }
        }
        self.refresh()?;
        ok("done")
    }

    /// The messages of the selected folder that are marked as deleted now. A verb must name what
    /// it removes: a replay would otherwise remove what is marked then.
    pub(super) fn deleted(&mut self, user: &str) -> io::Result<Result<Vec<Message>, String>> {
        let Some(view) = &self.view else {
            return Ok(Ok(Vec::new()));
        };
        let store = self.manager.service();
        let folder = view.folder.clone();
        Ok(self.manager.look(|_| {
            let _turn = store.turns.look(user);
            let name = store
                .factory
                .name(user, &folder)
                .ok()
                .flatten()
                .ok_or("the folder has gone")?;
            let found = store.pool.within(user, &name, true, |session, listing| {
                let answer = session.ask(b"UID SEARCH DELETED")?;
                let uids = numbers_of(&answer.untagged);
                Ok(listing
                    .iter()
                    .filter(|(uid, _)| uids.contains(uid))
                    .map(|(_, m)| *m)
                    .collect())
            });
            found.map_err(|e| e.to_string())
        }))
    }
}

fn flags_of(list: &[Token]) -> Result<String, String> {
    let flags: Option<Vec<String>> = list
        .iter()
        .map(|token| match token {
            Token::Atom(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
        .collect();
    let flags = flags.ok_or("BAD this is no list of flags")?;
    let is_recent = |f: &String| f.eq_ignore_ascii_case("\\Recent");
    match flags.iter().any(is_recent) || flags.iter().any(|f| f.contains(['[', ']', '*', '%'])) {
        true => Err("BAD a flag cannot be set".into()),
        false => Ok(flags.join(" ")),
    }
}

/// The items of a FETCH one by one, with the macros of RFC 3501, 6.4.5 written out.
fn items_of(token: &Token) -> Result<Vec<String>, String> {
    let text = match token {
        Token::List(list) => {
            let mut bytes = Vec::new();
            for token in list {
                token.write(&mut bytes);
                bytes.push(b' ');
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Token::Atom(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => return Err("BAD the items of a FETCH are atoms".into()),
    };
    let fast = "FLAGS INTERNALDATE RFC822.SIZE";
    let text = match text.to_ascii_uppercase().as_str() {
        "FAST" => fast.to_owned(),
        "ALL" => format!("{fast} ENVELOPE"),
        "FULL" => format!("{fast} ENVELOPE BODY"),
        _ => text,
    };
    let items = split_items(&text);
    for item in &items {
        let upper = item.to_ascii_uppercase();
        let known = [
            "FLAGS",
            "INTERNALDATE",
            "RFC822.SIZE",
            "ENVELOPE",
            "BODY",
            "BODYSTRUCTURE",
            "UID",
            "RFC822",
            "RFC822.HEADER",
            "RFC822.TEXT",
        ];
        let section = upper.starts_with("BODY[") || upper.starts_with("BODY.PEEK[");
        if !known.contains(&upper.as_str()) && !section || item.contains(['\r', '\n']) {
            return Err(format!("BAD {item} is no item of a FETCH"));
        }
    }
    match items.is_empty() {
        true => Err("BAD a FETCH of nothing".into()),
        false => Ok(items),
    }
}

fn shows_text(item: &str) -> bool {
    let item = item.to_ascii_uppercase();
    !["FLAGS", "INTERNALDATE", "RFC822.SIZE"].contains(&item.as_str())
}

fn line_marks(items: &[&String]) -> bool {
    items.iter().any(|item| {
        let item = item.to_ascii_uppercase();
        item.starts_with("BODY[") || item == "RFC822" || item == "RFC822.TEXT"
    })
}

fn peek_all(items: &str) -> String {
    split_items(items)
        .into_iter()
        .map(|item| match item.to_ascii_uppercase().as_str() {
            upper if upper.starts_with("BODY[") => format!("BODY.PEEK{}", &item[4..]),
            _ => item,
        })
        .collect::<Vec<_>>()
        .join(" ")
}
