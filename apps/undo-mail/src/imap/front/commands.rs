//! What each command of a client does.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use base64::Engine;

use super::{CAPABILITIES, Client, Reply, View};
use crate::bytes::Bytes;
use crate::imap::token::{self, Token};
use crate::names::{self, Folder, Message};
use crate::notices;
use crate::store::{self, Answer};
use crate::verbs::{Act, Verb, split_items};

/// How often an idling client's folder is looked at.
const IDLE_TICK: Duration = Duration::from_millis(500);

/// Names and values of what a FETCH has shown of a message.
type Items = Vec<(String, Token)>;

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

    fn on_selected(
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

    fn submit(&mut self, user: &str, act: Act) -> io::Result<Result<Answer, String>> {
        Ok(match self.manager.submit(Verb::new(user, act)) {
            Ok((_, outcome, answer)) => match outcome.status {
                undo::Status::Done => Ok(answer),
                undo::Status::Failed(why) => Err(why),
            },
            Err(refused) => Err(format!("[UNAVAILABLE] {refused}")),
        })
    }

    fn folder(&self, user: &str, token: Option<&Token>) -> Result<Folder, String> {
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

    fn login(&mut self, arguments: &[Token]) -> io::Result<Reply> {
        let (Some(user), Some(password)) = (
            arguments.first().and_then(Token::text),
            arguments.get(1).and_then(Token::text),
        ) else {
            return Ok(Err("BAD the form is LOGIN user password".into()));
        };
        self.let_in(user, &password)
    }

    fn authenticate(&mut self, arguments: &[Token]) -> io::Result<Reply> {
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

    fn let_in(&mut self, user: String, password: &str) -> io::Result<Reply> {
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

    fn select(&mut self, user: &str, arguments: &[Token], read_only: bool) -> io::Result<Reply> {
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

    fn create(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
        let mut folder = match self.folder(user, arguments.first()) {
            Ok(folder) => folder,
            Err(why) => return Ok(Err(why)),
        };
        // One that is deleted and made again is another folder: it must not inherit UIDs.
        folder.id = names::fresh();
        self.plain(user, Act::Create { folder })
    }

    fn rename(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
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

    fn on_folder(
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

    fn plain(&mut self, user: &str, act: Act) -> io::Result<Reply> {
        Ok(self.submit(user, act)?.map(|_| "done".into()))
    }

    fn list(&mut self, user: &str, arguments: &[Token], subscribed: bool) -> io::Result<Reply> {
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
    fn pass_on<E: std::fmt::Display>(
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

    fn status(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
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
            let listing = self
                .manager
                .look(|_| store.pool.within(user, &name, true, |_, l| Ok(l.clone())));
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

    fn append(&mut self, user: &str, arguments: &[Token]) -> io::Result<Reply> {
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
    fn uid_code(
        &self,
        user: &str,
        folder: &Folder,
        ids: &[u64],
    ) -> io::Result<Option<(u32, String)>> {
        let store = self.manager.service();
        let listing = self.manager.look(|_| {
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

    fn fetch(&mut self, user: &str, arguments: &[Token], by_uid: bool) -> io::Result<Reply> {
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

    fn store(&mut self, user: &str, arguments: &[Token], by_uid: bool) -> io::Result<Reply> {
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

    fn copy(
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

    fn expunge(&mut self, user: &str, arguments: &[Token], by_uid: bool) -> io::Result<Reply> {
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
    fn deleted(&mut self, user: &str) -> io::Result<Result<Vec<Message>, String>> {
        let Some(view) = &self.view else {
            return Ok(Ok(Vec::new()));
        };
        let store = self.manager.service();
        let folder = view.folder.clone();
        Ok(self.manager.look(|_| {
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

    /// Passes a search on, with the client's numbers put into those of the real server.
    fn search(&mut self, user: &str, arguments: &[Token], by_uid: bool) -> io::Result<Reply> {
        let Some(view) = &self.view else {
            return ok("done");
        };
        let store = self.manager.service();
        let folder = view.folder.clone();
        let places = self.sequence_of();
        let found = self.manager.look(|_| {
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

    fn search_keys(
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

    fn idle(&mut self) -> io::Result<Reply> {
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

fn ok(text: &str) -> io::Result<Reply> {
    Ok(Ok(text.to_owned()))
}

fn numbers_of(untagged: &[Vec<Token>]) -> std::collections::HashSet<u32> {
    untagged
        .iter()
        .filter(|r| r.first().and_then(Token::word).as_deref() == Some("SEARCH"))
        .flat_map(|r| r[1..].iter().filter_map(Token::number))
        .collect()
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
