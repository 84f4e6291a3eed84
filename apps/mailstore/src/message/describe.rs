//! ENVELOPE and BODYSTRUCTURE (RFC 3501, section 7.4.2).

use super::address::{self, Address};
use super::header::{self, Parameters};
use super::structure::{Inside, Part};

/// Adds the envelope that this header makes.
pub fn envelope(out: &mut Vec<u8>, header: &[u8]) {
    let mut lists: [Option<Vec<Address>>; 6] = Default::default();
    const NAMES: [&str; 6] = ["from", "sender", "reply-to", "to", "cc", "bcc"];
    let mut texts: [Option<Vec<u8>>; 4] = Default::default();
    const TEXTS: [&str; 4] = ["date", "subject", "in-reply-to", "message-id"];
    for field in header::fields(header) {
        if let Some(at) = NAMES.iter().position(|name| field.is(name)) {
            lists[at]
                .get_or_insert_default()
                .extend(address::parse_list(&field.unfolded()));
        } else if let Some(at) = TEXTS.iter().position(|name| field.is(name)) {
            texts[at].get_or_insert_with(|| field.unfolded());
        }
    }
    let [from, sender, reply_to, to, cc, bcc] = lists;
    let or_from =
        |list: Option<Vec<Address>>| list.filter(|l| !l.is_empty()).or_else(|| from.clone());
    let [date, subject, in_reply_to, message_id] = texts;
    out.push(b'(');
    nstring(out, date.as_deref());
    out.push(b' ');
    nstring(out, subject.as_deref());
    for list in [
        from.clone(),
        or_from(sender),
        or_from(reply_to),
        to,
        cc,
        bcc,
    ] {
        out.push(b' ');
        addresses(out, list.as_deref().unwrap_or_default());
    }
    out.push(b' ');
    nstring(out, in_reply_to.as_deref());
    out.push(b' ');
    nstring(out, message_id.as_deref());
    out.push(b')');
}

fn addresses(out: &mut Vec<u8>, list: &[Address]) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for address in list {
        out.push(b'(');
        nstring(out, address.name.as_deref());
        out.push(b' ');
        nstring(out, address.route.as_deref());
        out.push(b' ');
        nstring(out, address.mailbox.as_deref());
        out.push(b' ');
        nstring(out, address.host.as_deref());
        out.push(b')');
    }
    out.push(b')');
}

/// Adds BODYSTRUCTURE, or BODY if not `extended`.
pub fn body_structure(out: &mut Vec<u8>, text: &[u8], part: &Part, extended: bool) {
    let header = &text[part.header.clone()];
    let (main, sub) = part.kind();
    out.push(b'(');
    if let Inside::Parts(parts) = &part.inside {
        for part in parts {
            body_structure(out, text, part, extended);
        }
        out.push(b' ');
        string(out, sub.as_bytes());
        if extended {
            out.push(b' ');
            parameters(out, &part.content_type);
            extension(out, header);
        }
        out.push(b')');
        return;
    }
    // A multipart without parts is shown as a text, for it must have one.
    let (main, sub) = if main == "MULTIPART" {
        ("TEXT".into(), "PLAIN".into())
    } else {
        (main, sub)
    };
    let body = &text[part.body.clone()];
    string(out, main.as_bytes());
    out.push(b' ');
    string(out, sub.as_bytes());
    out.push(b' ');
    parameters(out, &part.content_type);
    for name in ["content-id", "content-description"] {
        out.push(b' ');
        nstring(out, header::first(header, name).as_deref());
    }
    let encoding = header::first(header, "content-transfer-encoding")
        .map(|value| Parameters::parse(&value).value.to_ascii_uppercase())
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| b"7BIT".to_vec());
    out.push(b' ');
    string(out, &encoding);
    out.extend_from_slice(format!(" {}", body.len()).as_bytes());
    let line_count = || memchr::memchr_iter(b'\n', body).count();
    if let Inside::Message(message) = &part.inside {
        out.push(b' ');
        envelope(out, &text[message.header.clone()]);
        out.push(b' ');
        body_structure(out, text, message, extended);
        out.extend_from_slice(format!(" {}", line_count()).as_bytes());
    } else if main == "TEXT" {
        out.extend_from_slice(format!(" {}", line_count()).as_bytes());
    }
    if extended {
        out.push(b' ');
        nstring(out, header::first(header, "content-md5").as_deref());
        extension(out, header);
    }
    out.push(b')');
}

/// Disposition, language and location.
fn extension(out: &mut Vec<u8>, header: &[u8]) {
    out.push(b' ');
    match header::first(header, "content-disposition").map(|value| Parameters::parse(&value)) {
        Some(disposition) if !disposition.value.is_empty() => {
            out.push(b'(');
            string(out, &disposition.value);
            out.push(b' ');
            parameters(out, &disposition);
            out.push(b')');
        }
        _ => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    nstring(out, header::first(header, "content-language").as_deref());
    out.push(b' ');
    nstring(out, header::first(header, "content-location").as_deref());
}

fn parameters(out: &mut Vec<u8>, parameters: &Parameters) {
    if parameters.list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (at, (name, value)) in parameters.list.iter().enumerate() {
        out.push(if at == 0 { b'(' } else { b' ' });
        string(out, name);
        out.push(b' ');
        string(out, value);
    }
    out.push(b')');
}

pub fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// A quoted string where the octets allow it, else a literal.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() <= 1024 && text.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        out.push(b'"');
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    } else {
        literal(out, text);
    }
}

pub fn literal(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(format!("{{{}}}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::structure;

    #[test]
    fn an_envelope_repeats_from_where_the_rfc_says() {
        let mut out = Vec::new();
        envelope(
            &mut out,
            b"From: A <a@x>\r\nTo: b@y\r\nSubject: \"q\"\r\nMessage-Id: <1@x>\r\n\r\n",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"(NIL "\"q\"" (("A" NIL "a" "x")) (("A" NIL "a" "x")) (("A" NIL "a" "x")) ((NIL NIL "b" "y")) NIL NIL NIL "<1@x>")"#
        );
    }

    #[test]
    fn structures_of_a_text_a_mixture_and_a_message() {
        let describe = |text: &[u8]| {
            let mut out = Vec::new();
            body_structure(&mut out, text, &structure::parse(text), true);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            describe(b"Subject: x\r\n\r\nhello\r\n"),
            r#"("TEXT" "PLAIN" ("charset" "us-ascii") NIL NIL "7BIT" 7 1 NIL NIL NIL NIL)"#
        );
        assert_eq!(
            describe(
                b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\none\r\n--o\r\nContent-Type: a/b\r\n\
                Content-Disposition: attachment; filename=f\r\n\r\nx\r\n--o--\r\n"
            ),
            r#"(("TEXT" "PLAIN" ("charset" "us-ascii") NIL NIL "7BIT" 3 0 NIL NIL NIL NIL)("A" "B" NIL NIL NIL "7BIT" 1 NIL ("attachment" ("filename" "f")) NIL NIL) "MIXED" ("boundary" "o") NIL NIL NIL)"#
        );
        assert!(
            describe(b"Content-Type: message/rfc822\r\n\r\nSubject: i\r\n\r\nb")
                .contains(r#"(NIL "i" NIL"#)
        );
        assert!(
            describe(b"Content-Type: multipart/mixed; boundary=o\r\n\r\n")
                .starts_with(r#"("TEXT" "PLAIN""#)
        );
    }
}
