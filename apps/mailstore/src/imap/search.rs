//! SEARCH. Cheap keys are asked of what is known; a message is read only if they
//! leave it in question. Text is compared decoded and without regard to case.

use std::sync::OnceLock;
use std::time::SystemTime;

use mail_parser::{MessageParser, MimeHeaders, PartType};

use super::command::{Flag, Key, Returns, Search};
use super::session::Outcome;
use super::view::{Told, View};
use crate::clock::Day;
use crate::failure::Result;
use crate::imap::change::set_text;
use crate::maildir::mailbox::{Mailbox, Message, State};
use crate::maildir::name::Flags;
use crate::message::{header, lines};

pub fn needs_modseq(keys: &[Key]) -> bool {
    keys.iter().any(|key| match key {
        Key::ModSeq(_) => true,
        Key::Not(inner) => needs_modseq(std::slice::from_ref(inner)),
        Key::Or(a, b) => {
            needs_modseq(std::slice::from_ref(a)) || needs_modseq(std::slice::from_ref(b))
        }
        Key::And(keys) => needs_modseq(keys),
        _ => false,
    })
}

pub fn search(view: &mut View, search: &Search, tag: &str, out: &mut Vec<u8>) -> Outcome {
    if let Some(charset) = &search.charset
        && charset != "UTF-8"
        && charset != "US-ASCII"
    {
        return Ok("NO [BADCHARSET (UTF-8 US-ASCII)] The charset is not known".into());
    }
    let mailbox = view.mailbox.clone();
    let mut found: Vec<u32> = Vec::new();
    let mut highest_modseq = 0;
    let last_uid = view.messages().last().map_or(0, |told| told.uid);
    let count = view.messages().len() as u32;
    for (place, told) in view.messages().iter().enumerate() {
        let number = place as u32 + 1;
        // The lock is taken for each message: a long search must not hold up deliveries.
        let question = {
            let mut state = mailbox.lock();
            view.check_there(&state)?;
            let Some(message) = state.find(told.uid).cloned() else {
                continue;
            };
            let question = Question {
                mailbox: &mailbox,
                message,
                told: *told,
                number,
                count,
                last_uid,
                content: OnceLock::new(),
            };
            match question.cheap_all(&mut state, &search.keys)? {
                Some(false) => continue,
                Some(true) => {
                    highest_modseq = highest_modseq.max(question.message.modseq);
                    found.push(if search.uid { told.uid } else { number });
                    continue;
                }
                None => {}
            }
            question
        };
        // Whatever the cheap keys could not tell is asked of the text.
        let answer = search
            .keys
            .iter()
            .try_fold(true, |all, key| Ok(all && question.full(key)?));
        match answer {
            Ok(false) => {}
            Ok(true) => {
                highest_modseq = highest_modseq.max(question.message.modseq);
                found.push(if search.uid { told.uid } else { number });
            }
            // It was expunged or renamed while we came to read it.
            Err(NotRead(failure)) if failure.kind() == std::io::ErrorKind::NotFound => {}
            Err(NotRead(failure)) => return Err(failure),
        }
    }
    let modseq = (needs_modseq(&search.keys) && !found.is_empty()).then_some(highest_modseq);
    match search.returns {
        None => plain_answer(out, &found, modseq),
        Some(returns) => extended_answer(out, search.uid, returns, tag, &found, modseq),
    }
    Ok("OK Searched".into())
}

fn plain_answer(out: &mut Vec<u8>, found: &[u32], modseq: Option<u64>) {
    out.extend_from_slice(b"* SEARCH");
    for number in found {
        out.extend_from_slice(format!(" {number}").as_bytes());
    }
    if let Some(modseq) = modseq {
        out.extend_from_slice(format!(" (MODSEQ {modseq})").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn extended_answer(
    out: &mut Vec<u8>,
    uid: bool,
    returns: Returns,
    tag: &str,
    found: &[u32],
    modseq: Option<u64>,
) {
    let mut line = format!("* ESEARCH (TAG \"{tag}\")");
    if uid {
        line.push_str(" UID");
    }
    if let (Some(first), Some(last)) = (found.first(), found.last()) {
        if returns.min {
            line.push_str(&format!(" MIN {first}"));
        }
        if returns.max {
            line.push_str(&format!(" MAX {last}"));
        }
        if returns.all {
            line.push_str(&format!(" ALL {}", set_text(found)));
        }
    }
    if returns.count {
        line.push_str(&format!(" COUNT {}", found.len()));
    }
    if let Some(modseq) = modseq {
        line.push_str(&format!(" MODSEQ {modseq}"));
    }
    line.push_str("\r\n");
    out.extend_from_slice(line.as_bytes());
}

/// The file of a message could not be read.
struct NotRead(crate::failure::Failure);

/// Whether one message is what is searched for.
struct Question<'a> {
    mailbox: &'a Mailbox,
    message: Message,
    told: Told,
    number: u32,
    count: u32,
    last_uid: u32,
    content: OnceLock<Vec<u8>>,
}

impl Question<'_> {
    /// The answer, if the text is not needed for it.
    fn cheap_all(&self, state: &mut State, keys: &[Key]) -> Result<Option<bool>> {
        let mut all = Some(true);
        for key in keys {
            match self.cheap(state, key)? {
                Some(false) => return Ok(Some(false)),
                Some(true) => {}
                None => all = None,
            }
        }
        Ok(all)
    }

    fn cheap(&self, state: &mut State, key: &Key) -> Result<Option<bool>> {
        let flags = self.message.flags;
        Ok(Some(match key {
            Key::All => true,
            Key::Flag(Flag::System(flag), set) => flags.has(*flag) == *set,
            Key::Flag(Flag::Keyword(name), set) => {
                state
                    .keywords
                    .find(name)
                    .is_some_and(|keyword| flags.has(keyword))
                    == *set
            }
            Key::Recent => self.told.recent,
            Key::New => self.told.recent && !flags.has(Flags::SEEN),
            Key::Old => !self.told.recent,
            Key::Numbers(set) => set.has(self.number, self.count),
            Key::Uids(set) => set.has(self.message.uid, self.last_uid),
            Key::Larger(size) => self.mailbox.wire_len(state, self.message.uid)? > *size,
            Key::Smaller(size) => self.mailbox.wire_len(state, self.message.uid)? < *size,
            Key::ModSeq(modseq) => self.message.modseq >= *modseq,
            Key::Before(day) => self.arrived()? < *day,
            Key::On(day) => self.arrived()? == *day,
            Key::Since(day) => self.arrived()? >= *day,
            Key::Not(key) => return Ok(self.cheap(state, key)?.map(|answer| !answer)),
            Key::And(keys) => return self.cheap_all(state, keys),
            Key::Or(a, b) => match (self.cheap(state, a)?, self.cheap(state, b)?) {
                (Some(true), _) | (_, Some(true)) => true,
                (Some(false), Some(false)) => false,
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    fn arrived(&self) -> Result<Day> {
        let time = self.mailbox.arrived(&self.message);
        match time {
            Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => {
                Ok(Day::of(SystemTime::UNIX_EPOCH))
            }
            other => Ok(Day::of(other?)),
        }
    }

    fn full(&self, key: &Key) -> std::result::Result<bool, NotRead> {
        Ok(match key {
            Key::Header(name, wanted) => self.header_has(name, wanted)?,
            Key::Body(wanted) => body_has(self.text()?, wanted),
            Key::Text(wanted) => {
                let text = self.text()?;
                contains(lines::split_header(text).0, wanted)
                    || header::fields(lines::split_header(text).0)
                        .any(|field| contains(&decoded(field.value), wanted))
                    || body_has(text, wanted)
            }
            Key::SentBefore(day) => self.sent()?.is_some_and(|sent| sent < *day),
            Key::SentOn(day) => self.sent()?.is_some_and(|sent| sent == *day),
            Key::SentSince(day) => self.sent()?.is_some_and(|sent| sent >= *day),
            Key::Not(key) => !self.full(key)?,
            Key::Or(a, b) => self.full(a)? || self.full(b)?,
            Key::And(keys) => {
                for key in keys {
                    if !self.full(key)? {
                        return Ok(false);
                    }
                }
                true
            }
            other => {
                let mut state = self.mailbox.lock();
                self.cheap(&mut state, other)
                    .map_err(NotRead)?
                    .unwrap_or(false)
            }
        })
    }

    fn text(&self) -> std::result::Result<&[u8], NotRead> {
        if self.content.get().is_none() {
            let text = self.mailbox.read(&self.message).map_err(NotRead)?;
            let _ = self.content.set(text);
        }
        Ok(self.content.get().map_or(&[], Vec::as_slice))
    }

    fn header_has(&self, name: &str, wanted: &[u8]) -> std::result::Result<bool, NotRead> {
        let header = lines::split_header(self.text()?).0;
        Ok(header::fields(header)
            .filter(|field| field.is(name))
            .any(|field| {
                wanted.is_empty()
                    || contains(&field.unfolded(), wanted)
                    || contains(&decoded(field.value), wanted)
            }))
    }

    /// The day in the Date field, as it is written there.
    fn sent(&self) -> std::result::Result<Option<Day>, NotRead> {
        let header = lines::split_header(self.text()?).0;
        let parsed = MessageParser::new().parse_headers(header);
        Ok(parsed
            .as_ref()
            .and_then(|message| message.date())
            .map(|date| Day {
                year: date.year.into(),
                month: date.month.into(),
                day: date.day.into(),
            }))
    }
}

/// A field's value with encoded words decoded (RFC 2047).
pub fn decoded(value: &[u8]) -> Vec<u8> {
    if memchr::memmem::find(value, b"=?").is_none() {
        return value.to_vec();
    }
    // The parser takes whole fields; as a Subject every value is free text.
    let mut field = b"Subject:".to_vec();
    field.extend_from_slice(value);
    field.extend_from_slice(b"\r\n\r\n");
    let parsed = MessageParser::new().parse_headers(&field);
    parsed
        .as_ref()
        .and_then(|message| message.subject())
        .unwrap_or_default()
        .as_bytes()
        .to_vec()
}

/// Looks into the texts of all parts, decoded, and into what is not encoded at all.
pub fn body_has(text: &[u8], wanted: &[u8]) -> bool {
    let Some(message) = MessageParser::new().parse(text) else {
        return contains(lines::split_header(text).1, wanted);
    };
    parts_have(&message, wanted, 0)
}

fn parts_have(message: &mail_parser::Message, wanted: &[u8], depth: usize) -> bool {
    message.parts.iter().any(|part| match &part.body {
        PartType::Text(text) | PartType::Html(text) => contains(text.as_bytes(), wanted),
        PartType::Message(inner) => depth < 10 && parts_have(inner, wanted, depth + 1),
        PartType::Binary(octets) | PartType::InlineBinary(octets) => {
            part.content_type()
                .is_none_or(|kind| kind.c_type.eq_ignore_ascii_case("text"))
                && contains(octets, wanted)
        }
        PartType::Multipart(_) => false,
    })
}

/// Whether `text` has `wanted` in it, letters large or small.
fn contains(text: &[u8], wanted: &[u8]) -> bool {
    if wanted.is_empty() {
        return true;
    }
    if wanted.is_ascii() {
        let (first, rest) = (wanted[0], &wanted[1..]);
        let (low, high) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
        return memchr::memchr2_iter(low, high, text).any(|at| {
            text.get(at + 1..at + wanted.len())
                .is_some_and(|found| found.eq_ignore_ascii_case(rest))
        });
    }
    let wanted = String::from_utf8_lossy(wanted).to_lowercase();
    String::from_utf8_lossy(text)
        .to_lowercase()
        .contains(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_whatever_its_case_and_encoding() {
        assert!(contains(b"say Hello", b"hELLO") && !contains(b"hell", b"hello"));
        assert!(contains("GRÜSSE".as_bytes(), "grüsse".as_bytes()));
        assert!(contains(
            &decoded(b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?= von Anna"),
            "grüße von".as_bytes()
        ));
        let text = b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe aus K=F6ln\r\n";
        assert!(body_has(text, "grüße aus köln".as_bytes()));
        assert!(!body_has(text, b"charset"));
    }
}
