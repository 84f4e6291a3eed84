//! What each command of a client does: the way in, logins, and waiting. `folders`, `messages` and
//! `search` have the rest.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use base64::Engine;

use super::{CAPABILITIES, Client, Reply};
use crate::imap::token::Token;
use crate::names::Folder;
use crate::store::Answer;
use crate::verbs::{Act, Verb};

/// How often an idling client's folder is looked at.
const IDLE_TICK: Duration = Duration::from_millis(500);

impl Client {
    pub(super) fn dispatch(&mut self, word: &str, arguments: &[Token]) -> io::Result<Reply> {
        match word {
            "CAPABILITY" => {
                self.write(&format!("* CAPABILITY {CAPABILITIES}"))?;
                return ok("done");
            }
            "NOOP" | "CHECK" => {
                self.refresh()?;
                return ok("done");
            }
            "LOGOUT" => {
                self.write("* BYE goodbye")?;
                return ok("done");
            }
            "ID" => {
                self.write("* ID (\"name\" \"undo-mail\")")?;
                return ok("done");
            }
            "LOGIN" => return self.login(arguments),
            "AUTHENTICATE" => return self.authenticate(arguments),
            "STARTTLS" => return Ok(Err("BAD TLS is not offered here".into())),
            _ => {}
        }
        let Some(user) = self.user.clone() else {
            return Ok(Err("BAD log in first".into()));
        };
        match word {
            "SELECT" => self.select(&user, arguments, false),
            "EXAMINE" => self.select(&user, arguments, true),
            "CREATE" => self.create(&user, arguments),
            "DELETE" => self.on_folder(&user, arguments, |folder| Act::Delete { folder }),
            "RENAME" => self.rename(&user, arguments),
            "SUBSCRIBE" => self.on_folder(&user, arguments, |folder| Act::Subscribe {
                folder,
                on: true,
            }),
            "UNSUBSCRIBE" => self.on_folder(&user, arguments, |folder| Act::Subscribe {
                folder,
                on: false,
            }),
            "LIST" => self.list(&user, arguments, false),
            "LSUB" => self.list(&user, arguments, true),
            "NAMESPACE" => {
                let answer = self.manager.look(|_| {
                    self.manager
                        .service()
                        .pool
                        .with(&user, |s| Ok(s.ask(b"NAMESPACE")?))
                });
                self.pass_on(answer.map(|a| a.untagged), "NAMESPACE")
            }
            "STATUS" => self.status(&user, arguments),
            "APPEND" => self.append(&user, arguments),
            "IDLE" => self.idle(),
            "UID" => {
                let Some(word) = arguments.first().and_then(Token::word) else {
                    return Ok(Err("BAD a command is missing behind UID".into()));
                };
                self.on_selected(&user, &word, &arguments[1..], true)
            }
            _ => self.on_selected(&user, word, arguments, false),
        }
    }

    pub(super) fn on_selected(
        &mut self,
        user: &str,
        word: &str,
        arguments: &[Token],
        by_uid: bool,
    ) -> io::Result<Reply> {
        let known = match by_uid {
            true => ["FETCH", "STORE", "COPY", "MOVE", "SEARCH", "EXPUNGE"].contains(&word),
            false => [
                "FETCH", "STORE", "COPY", "MOVE", "SEARCH", "EXPUNGE", "CLOSE", "UNSELECT",
            ]
            .contains(&word),
        };
        if !known {
            return Ok(Err("BAD there is no such command".into()));
        }
        let Some(view) = &self.view else {
            return Ok(Err("BAD select a folder first".into()));
        };
        let changes = ["STORE", "MOVE", "EXPUNGE"].contains(&word);
        if view.read_only && changes {
            return Ok(Err("the folder is selected read-only".into()));
        }
        match word {
            "FETCH" => self.fetch(user, arguments, by_uid),
            "STORE" => self.store(user, arguments, by_uid),
            "COPY" | "MOVE" => self.copy(user, arguments, by_uid, word == "MOVE"),
            "SEARCH" => self.search(user, arguments, by_uid),
            "EXPUNGE" => self.expunge(user, arguments, by_uid),
            "CLOSE" => {
                let folder = view.folder.clone();
                let read_only = view.read_only;
                let deleted = if read_only {
                    Ok(vec![])
                } else {
                    self.deleted(user)?
                };
                self.view = None;
                match deleted {
                    Ok(messages) if messages.is_empty() => ok("closed"),
                    Ok(messages) => self
                        .submit(user, Act::Close { folder, messages })
                        .map(|r| r.map(|_| "closed".into())),
                    Err(why) => Ok(Err(why)),
                }
            }
            _ => {
                self.view = None;
                ok("unselected")
            }
        }
    }

    pub(super) fn submit(&mut self, user: &str, act: Act) -> io::Result<Result<Answer, String>> {
        Ok(match self.manager.submit(Verb::new(user, act)) {
            Ok((_, outcome, answer)) => match outcome.status {
                undo::Status::Done => Ok(answer),
                undo::Status::Failed(why) => Err(why),
            },
            Err(refused) => Err(format!("[UNAVAILABLE] {refused}")),
        })
    }

    pub(super) fn folder(&self, user: &str, token: Option<&Token>) -> Result<Folder, String> {
        let name = token
            .and_then(Token::text)
            .filter(|n| !n.is_empty())
            .ok_or("BAD a folder is missing")?;
        if name.contains(['\r', '\n', '\0']) {
            return Err("BAD this is no name of a folder".into());
        }
        let factory = &self.manager.service().factory;
        self.manager
            .look(|_| factory.folder(user, &name))
            .map_err(|e| e.to_string())
    }

    pub(super) fn login(&mut self, arguments: &[Token]) -> io::Result<Reply> {
        let (Some(user), Some(password)) = (
            arguments.first().and_then(Token::text),
            arguments.get(1).and_then(Token::text),
        ) else {
            return Ok(Err("BAD the form is LOGIN user password".into()));
        };
        self.let_in(user, &password)
    }

    pub(super) fn authenticate(&mut self, arguments: &[Token]) -> io::Result<Reply> {
        if arguments.first().and_then(Token::word).as_deref() != Some("PLAIN") {
            return Ok(Err("only AUTH=PLAIN is known".into()));
        }
        let encoded = match arguments.get(1).and_then(Token::text) {
            Some(initial) => initial,
            None => {
                self.write("+ ")?;
                self.writer.flush()?;
                let mut line = String::new();
                io::Read::take(&mut self.reader, 8192).read_line(&mut line)?;
                line.trim_end().to_owned()
            }
        };
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
        let text = decoded
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default();
        let parts: Vec<&str> = text.split('\0').collect();
        match parts[..] {
            [_, user, password] => self.let_in(user.to_owned(), password),
            _ => Ok(Err("BAD this is not what AUTH=PLAIN sends".into())),
        }
    }

    pub(super) fn let_in(&mut self, user: String, password: &str) -> io::Result<Reply> {
        if self.user.is_some() {
            return Ok(Err("BAD somebody is logged in already".into()));
        }
        // The character that separates a master's name must not let a client be one.
        let separators = self
            .manager
            .service()
            .settings
            .imap
            .master_name
            .replace("{user}", "");
        let separator = separators.chars().find(|c| !c.is_alphanumeric());
        if user.is_empty() || separator.is_some_and(|c| user.contains(c)) {
            return Ok(Err("[AUTHENTICATIONFAILED] this user is not known".into()));
        }
        let pool = &self.manager.service().pool;
        match self.manager.look(|_| pool.check_password(&user, password)) {
            Ok(true) => {
                self.user = Some(user);
                ok(&format!("[CAPABILITY {CAPABILITIES}] logged in"))
            }
            Ok(false) => {
                self.errors += 1;
                Ok(Err(
                    "[AUTHENTICATIONFAILED] user and password do not fit".into()
                ))
            }
            Err(error) => Ok(Err(format!("[UNAVAILABLE] {error}"))),
        }
    }

    pub(super) fn idle(&mut self) -> io::Result<Reply> {
        self.write("+ idling")?;
        self.writer.flush()?;
        let stream = self.reader.get_ref().try_clone()?;
        let end = Instant::now() + Duration::from_secs(1800);
        stream.set_read_timeout(Some(IDLE_TICK))?;
        let mut line = Vec::new();
        let result = loop {
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) => {
                    break Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the client has gone",
                    ));
                }
                Ok(_) => break Ok(()),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if Instant::now() > end {
                        break Err(io::Error::new(io::ErrorKind::TimedOut, "idle for too long"));
                    }
                    self.refresh()?;
                    self.writer.flush()?;
                }
                Err(e) => break Err(e),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(1860)))?;
        result?;
        match line.trim_ascii().eq_ignore_ascii_case(b"DONE") {
            true => ok("done"),
            false => Ok(Err("BAD an IDLE ends with DONE".into())),
        }
    }
}

pub(super) fn ok(text: &str) -> io::Result<Reply> {
    Ok(Ok(text.to_owned()))
}

pub(super) fn numbers_of(untagged: &[Vec<Token>]) -> std::collections::HashSet<u32> {
    untagged
        .iter()
        .filter(|r| r.first().and_then(Token::word).as_deref() == Some("SEARCH"))
        .flat_map(|r| r[1..].iter().filter_map(Token::number))
        .collect()
}
