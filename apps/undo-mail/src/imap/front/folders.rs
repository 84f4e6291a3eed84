//! Commands on folders: select, create, delete, rename, subscribe, list, status.

use std::io::{self, Write};

use super::commands::ok;
use super::{Client, Reply, View};
use crate::imap::token::Token;
use crate::names::{self, Folder};
use crate::verbs::Act;

impl Client {
    pub(super) fn select(
        &mut self,
        user: &str,
        arguments: &[Token],
        read_only: bool,
    ) -> io::Result<Reply> {
        // A command that fails leaves nothing selected (RFC 3501, 6.3.1).
        self.view = None;
        let folder = match self.folder(user, arguments.first()) {
            Ok(folder) => folder,
            Err(why) => return Ok(Err(why)),
        };
        let in_cycle = self.manager.look(|phase| phase != undo::Phase::Running);
        let read_only = read_only || in_cycle;
        let answer = match self.submit(
            user,
            Act::Select {
                folder: folder.clone(),
                read_only,
            },
        )? {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        let shown = self.number(user, folder.id, answer.listing.iter().map(|(_, m)| *m))?;
        let (validity, next) = {
            let numbers = self.uids.of(user, folder.id)?;
            let numbers = numbers.lock().unwrap_or_else(|p| p.into_inner());
            (numbers.uid_validity, numbers.next())
        };
        let flags = String::from_utf8_lossy(&answer.flags).into_owned();
        let permanent = match read_only {
            true => "()".to_owned(),
            false => String::from_utf8_lossy(&answer.permanent_flags).into_owned(),
        };
        self.write(&format!("* FLAGS {flags}"))?;
        self.write(&format!(
            "* OK [PERMANENTFLAGS {permanent}] flags that are kept"
        ))?;
        self.write(&format!("* {} EXISTS", shown.len()))?;
        self.write("* 0 RECENT")?;
        self.write(&format!("* OK [UIDVALIDITY {validity}] as ever"))?;
        self.write(&format!("* OK [UIDNEXT {next}] or above"))?;
        if in_cycle {
            self.write(
                "* OK [ALERT] the operator is repairing this service; for now it can only be read",
            )?;
        }
        self.view = Some(View {
            folder,
            read_only,
            shown,
        });
        ok(if read_only {
            "[READ-ONLY] selected"
        } else {
            "[READ-WRITE] selected"
        })
    }

    pub(super) fn create(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
        let mut folder = match self.folder(user, arguments.first()) {
            Ok(folder) => folder,
            Err(why) => return Ok(Err(why)),
        };
        // One that is deleted and made again is another folder: it must not inherit UIDs.
        folder.id = names::fresh();
        self.plain(user, Act::Create { folder })
    }

    pub(super) fn rename(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
        let to = arguments
            .get(1)
            .and_then(Token::text)
            .filter(|n| !n.is_empty());
        match (self.folder(user, arguments.first()), to) {
            (Ok(folder), Some(_)) if folder.is_inbox() => Ok(Err(
                "[CANNOT] INBOX cannot be renamed here; move its messages".into(),
            )),
            (Ok(folder), Some(to)) => self.plain(user, Act::Rename { folder, to }),
            (Err(why), _) => Ok(Err(why)),
            (_, None) => Ok(Err("BAD a new name is missing".into())),
        }
    }

    pub(super) fn on_folder(
        &mut self,
        user: &str,
        arguments: &[Token],
        act: impl FnOnce(Folder) -> Act,
    ) -> io::Result<Reply> {
        match self.folder(user, arguments.first()) {
            Ok(folder) => self.plain(user, act(folder)),
            Err(why) => Ok(Err(why)),
        }
    }

    pub(super) fn plain(&mut self, user: &str, act: Act) -> io::Result<Reply> {
        Ok(self.submit(user, act)?.map(|_| "done".into()))
    }

    pub(super) fn list(
        &mut self,
        user: &str,
        arguments: &[Token],
        subscribed: bool,
    ) -> io::Result<Reply> {
        let (Some(reference), Some(pattern)) = (
            arguments.first().and_then(Token::text),
            arguments.get(1).and_then(Token::text),
        ) else {
            return Ok(Err("BAD the form is LIST reference pattern".into()));
        };
        let answer = self.submit(
            user,
            Act::List {
                reference,
                pattern,
                subscribed,
            },
        )?;
        self.pass_on(
            answer.map(|a| a.untagged),
            if subscribed { "LSUB" } else { "LIST" },
        )
    }

    /// Writes responses of this kind as the real server gave them.
    pub(super) fn pass_on<E: std::fmt::Display>(
        &mut self,
        answer: Result<Vec<Vec<Token>>, E>,
        kind: &str,
    ) -> io::Result<Reply> {
        match answer {
            Ok(responses) => {
                for response in responses {
                    if response.first().and_then(Token::word).as_deref() == Some(kind) {
                        self.write_tokens(&response)?;
                    }
                }
                ok("done")
            }
            Err(why) => Ok(Err(why.to_string())),
        }
    }

    pub(super) fn status(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
        let folder = match self.folder(user, arguments.first()) {
            Ok(folder) => folder,
            Err(why) => return Ok(Err(why)),
        };
        let Some(items) = arguments.get(1).and_then(Token::list) else {
            return Ok(Err("BAD a list of items is missing".into()));
        };
        let words: Vec<String> = items.iter().filter_map(Token::word).collect();
        // What is about UIDs is ours to say; the rest is asked.
        let asked: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .filter(|w| matches!(*w, "MESSAGES" | "RECENT" | "UNSEEN"))
            .collect();
        if words.len() != items.len()
            || words.iter().any(|w| {
                !["MESSAGES", "RECENT", "UNSEEN", "UIDNEXT", "UIDVALIDITY"].contains(&w.as_str())
            })
        {
            return Ok(Err("BAD an item is not known".into()));
        }
        let asked = if asked.is_empty() {
            "MESSAGES".to_owned()
        } else {
            asked.join(" ")
        };
        let answer = match self.submit(
            user,
            Act::Status {
                folder: folder.clone(),
                items: asked,
            },
        )? {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        let values: Vec<Token> = answer
            .untagged
            .iter()
            .find(|r| r.first().and_then(Token::word).as_deref() == Some("STATUS"))
            .and_then(|r| r.get(2).and_then(Token::list).map(<[Token]>::to_vec))
            .unwrap_or_default();
        let asked_value = |word: &str| {
            values
                .chunks_exact(2)
                .find(|pair| pair[0].word().as_deref() == Some(word))
                .and_then(|pair| pair[1].number())
        };
        if words.iter().any(|w| w == "UIDNEXT") {
            // Messages that nobody has seen yet get their UIDs now, or the number would promise
            // that there are none.
            let name = folder.name.clone();
            let store = self.manager.service();
            let listing = self.manager.look(|_| {
                let _turn = store.turns.look(user);
                store.pool.within(user, &name, true, |_, l| Ok(l.clone()))
            });
            if let Ok(listing) = listing {
                self.number(user, folder.id, listing.into_iter().map(|(_, m)| m))?;
            }
        }
        let numbers = self.uids.of(user, folder.id)?;
        let (validity, next) = {
            let numbers = numbers.lock().unwrap_or_else(|p| p.into_inner());
            (numbers.uid_validity, numbers.next())
        };
        let parts: Vec<String> = words
            .iter()
            .map(|word| {
                let value = match word.as_str() {
                    "UIDNEXT" => next,
                    "UIDVALIDITY" => validity,
                    _ => asked_value(word).unwrap_or(0),
                };
                format!("{word} {value}")
            })
            .collect();
        let mut line = b"* STATUS ".to_vec();
        Token::Quoted(folder.name.into_bytes()).write(&mut line);
        line.extend_from_slice(format!(" ({})\r\n", parts.join(" ")).as_bytes());
        self.writer.write_all(&line)?;
        ok("done")
    }
}
