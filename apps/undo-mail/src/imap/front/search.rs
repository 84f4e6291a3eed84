//! SEARCH, with the client's numbers put into those of the real server.

use std::io;

use super::commands::{numbers_of, ok};
use super::{Client, Reply};
use crate::imap::token::{self, Token};
use crate::names::Message;

impl Client {
    /// Passes a search on, with the client's numbers put into those of the real server.
    pub(super) fn search(
        &mut self,
        user: &str,
        arguments: &[Token],
        by_uid: bool,
    ) -> io::Result<Reply> {
        let Some(view) = &self.view else {
            return ok("done");
        };
        let store = self.manager.service();
        let folder = view.folder.clone();
        let places = self.sequence_of();
        let found = self.manager.look(|_| {
            let _turn = store.turns.look(user);
            let name = store
                .factory
                .name(user, &folder)
                .ok()
                .flatten()
                .ok_or("the folder has gone".to_owned())?;
            let found = store.pool.within(user, &name, true, |session, listing| {
                let mut command = b"UID SEARCH".to_vec();
                let real: std::collections::HashMap<Message, u32> =
                    listing.iter().map(|&(uid, m)| (m, uid)).collect();
                match self.search_keys(arguments, &real, &mut command) {
                    Ok(()) => {}
                    Err(why) => return Ok(Err(why)),
                }
                let answer = session.ask(&command)?;
                if answer.kind != crate::imap::session::Kind::Ok {
                    return Ok(Err(answer.text));
                }
                let uids = numbers_of(&answer.untagged);
                let hits = listing.iter().filter(|(uid, _)| uids.contains(uid));
                let mut numbers: Vec<u32> = hits
                    .filter_map(|(_, m)| places.get(m))
                    .map(|&(sequence, uid)| if by_uid { uid } else { sequence })
                    .collect();
                numbers.sort_unstable();
                Ok(Ok(numbers))
            });
            found.map_err(|e| e.to_string())?
        });
        match found {
            Ok(numbers) => {
                let text: String = numbers.iter().map(|n| format!(" {n}")).collect();
                self.write(&format!("* SEARCH{text}"))?;
                ok("done")
            }
            Err(why) => Ok(Err(why)),
        }
    }

    pub(super) fn search_keys(
        &self,
        keys: &[Token],
        real: &std::collections::HashMap<Message, u32>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut at = 0;
        // What follows these is text, even if it looks like a set.
        let takes_text = [
            "BCC",
            "BEFORE",
            "BODY",
            "CC",
            "FROM",
            "KEYWORD",
            "LARGER",
            "ON",
            "SENTBEFORE",
            "SENTON",
            "SENTSINCE",
            "SINCE",
            "SMALLER",
            "SUBJECT",
            "TEXT",
            "TO",
            "UNKEYWORD",
            "CHARSET",
        ];
        while let Some(key) = keys.get(at) {
            at += 1;
            out.push(b' ');
            if let Some(list) = key.list() {
                out.push(b'(');
                let mut inner = Vec::new();
                self.search_keys(list, real, &mut inner)?;
                out.extend_from_slice(inner.trim_ascii_start());
                out.push(b')');
                continue;
            }
            let word = key.word().unwrap_or_default();
            let is_set = word.starts_with(|c: char| c.is_ascii_digit() || c == '*');
            if word == "UID" || is_set {
                let set = match word == "UID" {
                    true => keys.get(at).ok_or("BAD a set of messages is missing")?,
                    false => key,
                };
                at += usize::from(word == "UID");
                let chosen = self.chosen(set, word == "UID")?;
                let mut uids: Vec<u32> = chosen
                    .iter()
                    .filter_map(|(_, _, m)| real.get(m).copied())
                    .collect();
                uids.sort_unstable();
                match uids.is_empty() {
                    // There is no empty set in IMAP.
                    true => out.extend_from_slice(b"NOT ALL"),
                    false => {
                        out.extend_from_slice(format!("UID {}", token::show_set(&uids)).as_bytes())
                    }
                }
                continue;
            }
            out.extend_from_slice(word.as_bytes());
            let texts = if word == "HEADER" {
                2
            } else {
                usize::from(takes_text.contains(&word.as_str()))
            };
            for _ in 0..texts {
                let text = keys
                    .get(at)
                    .and_then(Token::bytes)
                    .ok_or("BAD a search key lacks its text")?;
                at += 1;
                out.push(b' ');
                out.extend(token::quote(text));
            }
        }
        Ok(())
    }
}
