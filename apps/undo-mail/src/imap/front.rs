//! The IMAP server that clients see (RFC 3501, with UIDPLUS, MOVE, IDLE, LITERAL+, UNSELECT,
//! NAMESPACE, SPECIAL-USE attributes as the real server gives them, and SASL-IR).
//!
//! A client never speaks to the real server. Its sequence numbers and UIDs are ours ([`view`]):
//! each command becomes a verb with UndoIDs in it, the manager executes the verb, and its answer
//! is put back into the client's numbers. So a client may stay connected through a rewind; what it
//! sees afterwards is messages that come and go.

mod commands;
mod folders;
mod messages;
mod search;

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::token::{self, Longest, Token};
use super::view::Uids;
use crate::names::{Folder, Message};
use crate::store::Manager;

const LONGEST: Longest = Longest {
    line: 256 << 10,
    literals: 64 << 20,
};
/// A stranger has a name and a password to say.
const LONGEST_OF_STRANGER: Longest = Longest {
    line: 8 << 10,
    literals: 8 << 10,
};
const MOST_ERRORS: usize = 50;
const CAPABILITIES: &str =
    "IMAP4rev1 LITERAL+ SASL-IR ID IDLE UNSELECT UIDPLUS MOVE NAMESPACE CHILDREN AUTH=PLAIN";

/// Serves clients from now on, each in a thread.
pub fn serve(manager: Manager, uids: Arc<Uids>, listener: TcpListener) -> io::Result<()> {
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let (manager, uids) = (manager.clone(), uids.clone());
            let _ = std::thread::Builder::new()
                .name("imap".into())
                .spawn(move || {
                    let _ =
                        Client::new(manager, uids, stream).and_then(|mut client| client.serve());
                });
        }
    };
    std::thread::Builder::new()
        .name("imap-accept".into())
        .spawn(accept)
        .map(drop)
}

/// A folder as one client sees it.
struct View {
    folder: Folder,
    read_only: bool,
    /// UIDs and messages by sequence number.
    shown: Vec<(u32, Message)>,
}

struct Client {
    manager: Manager,
    uids: Arc<Uids>,
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    user: Option<String>,
    view: Option<View>,
    errors: usize,
}

/// How a command ends: the tagged response without its tag.
type Reply = Result<String, String>;

impl Client {
    fn new(manager: Manager, uids: Arc<Uids>, stream: TcpStream) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        // RFC 3501, 5.4: not less than 30 minutes.
        stream.set_read_timeout(Some(Duration::from_secs(1860)))?;
        stream.set_write_timeout(Some(Duration::from_secs(300)))?;
        Ok(Client {
            writer: BufWriter::new(stream.try_clone()?),
            reader: BufReader::new(stream),
            manager,
            uids,
            user: None,
            view: None,
            errors: 0,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        self.write(&format!("* OK [CAPABILITY {CAPABILITIES}] ready"))?;
        self.writer.flush()?;
        loop {
            let mut writer = self.writer.get_ref().try_clone()?;
            let more = move || writer.write_all(b"+ go on\r\n");
            let longest = match self.user {
                Some(_) => LONGEST,
                None => LONGEST_OF_STRANGER,
            };
            let frame = match token::read_frame(&mut self.reader, longest, more) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // Where the next command begins is not known any more.
                    self.write(&format!("* BYE {error}"))?;
                    return self.writer.flush();
                }
            };
            let stop = self.command(&frame)?;
            self.writer.flush()?;
            if stop {
                return Ok(());
            }
            if self.errors > MOST_ERRORS {
                self.write("* BYE too many errors")?;
                return self.writer.flush();
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        write!(self.writer, "{line}\r\n")
    }

    fn write_tokens(&mut self, tokens: &[Token]) -> io::Result<()> {
        let mut line = b"*".to_vec();
        for token in tokens {
            line.push(b' ');
            token.write(&mut line);
        }
        line.extend_from_slice(b"\r\n");
        self.writer.write_all(&line)
    }

    /// True: the connection ends.
    fn command(&mut self, frame: &[u8]) -> io::Result<bool> {
        let tokens = match token::parse(frame) {
            Ok(tokens) => tokens,
            Err(why) => {
                self.errors += 1;
                let tag = frame.split(|&b| b == b' ').next().unwrap_or_default();
                let tag = String::from_utf8_lossy(tag).trim().to_owned();
                let tag = if is_tag(&tag) { tag } else { "*".into() };
                self.write(&format!("{tag} BAD {why}"))?;
                return Ok(false);
            }
        };
        let Some(tag) = tokens
            .first()
            .and_then(Token::text)
            .filter(|tag| is_tag(tag))
        else {
            self.errors += 1;
            self.write("* BAD a command begins with a tag")?;
            return Ok(false);
        };
        let Some(word) = tokens.get(1).and_then(Token::word) else {
            self.errors += 1;
            self.write(&format!("{tag} BAD there is no command behind the tag"))?;
            return Ok(false);
        };
        let reply = self.dispatch(&word, &tokens[2..])?;
        match reply {
            Ok(text) => self.write(&format!("{tag} OK {text}"))?,
            Err(text) if text.starts_with("BAD ") => {
                self.errors += 1;
                self.write(&format!("{tag} {text}"))?;
            }
            Err(text) => self.write(&format!("{tag} NO {text}"))?,
        }
        Ok(word == "LOGOUT")
    }

    /// Brings the client's view up to date and tells it what has come and gone.
    fn refresh(&mut self) -> io::Result<()> {
        let (Some(user), Some(view)) = (&self.user, &self.view) else {
            return Ok(());
        };
        let store = self.manager.service();
        let listed = self.manager.look(|_| {
            let _turn = store.turns.look(user);
            let name = store.factory.name(user, &view.folder).ok().flatten()?;
            store
                .pool
                .within(user, &name, true, |_, listing| Ok(listing.clone()))
                .ok()
        });
        let Some(listing) = listed else { return Ok(()) };
        let now = self.number(user, view.folder.id, listing.into_iter().map(|(_, m)| m))?;
        if now == view.shown {
            return Ok(());
        }
        let still: std::collections::HashSet<u32> = now.iter().map(|(uid, _)| *uid).collect();
        let mut old: Vec<u32> = view.shown.iter().map(|(uid, _)| *uid).collect();
        let mut lines = Vec::new();
        for at in (0..old.len()).rev() {
            if !still.contains(&old[at]) {
                lines.push(format!("* {} EXPUNGE", at + 1));
                old.remove(at);
            }
        }
        if now.len() != old.len() {
            lines.push(format!("* {} EXISTS", now.len()));
        }
        if let Some(view) = &mut self.view {
            view.shown = now;
        }
        lines.iter().try_for_each(|line| self.write(line))
    }

    fn number(
        &self,
        user: &str,
        folder: u64,
        messages: impl Iterator<Item = Message>,
    ) -> io::Result<Vec<(u32, Message)>> {
        let numbers = self.uids.of(user, folder)?;
        let mut numbers = numbers.lock().unwrap_or_else(|p| p.into_inner());
        numbers.assign(messages)
    }

    /// The messages that a set names, by sequence number or UID.
    fn chosen(&self, set: &Token, by_uid: bool) -> Result<Vec<(u32, u32, Message)>, String> {
        let Some(view) = &self.view else {
            return Err("BAD no folder is selected".into());
        };
        let text = set.text().ok_or("BAD a set of messages is missing")?;
        let largest = match by_uid {
            true => view.shown.last().map_or(0, |(uid, _)| *uid),
            false => view.shown.len() as u32,
        };
        let ranges = token::sequence_set(&text, largest).map_err(|why| format!("BAD {why}"))?;
        let mut found = Vec::new();
        for (at, &(uid, message)) in view.shown.iter().enumerate() {
            let sequence = at as u32 + 1;
            let number = if by_uid { uid } else { sequence };
            if ranges
                .iter()
                .any(|&(from, to)| (from..=to).contains(&number))
            {
                found.push((sequence, uid, message));
            }
        }
        Ok(found)
    }

    fn sequence_of(&self) -> HashMap<Message, (u32, u32)> {
        let shown = self
            .view
            .iter()
            .flat_map(|view| view.shown.iter().enumerate());
        shown
            .map(|(at, &(uid, message))| (message, (at as u32 + 1, uid)))
            .collect()
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text != "*"
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && !"+(){%\"\\".contains(c))
}
