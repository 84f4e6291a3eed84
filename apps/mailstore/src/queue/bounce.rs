//! What the sender is told: delivery status notifications (RFC 3464, in the shape
//! of RFC 6522).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Envelope;
use crate::clock;
use crate::message::lines;

/// So much of the message's header goes back.
const MAX_HEADER: usize = 32 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Failed,
    Delayed,
}

/// A notification about these recipients, each with what was said of it.
pub fn report(
    kind: Kind,
    host: &str,
    id: &str,
    envelope: &Envelope,
    about: &[(String, String)],
    text: &[u8],
    now: SystemTime,
) -> Vec<u8> {
    let header = lines::split_header(text).0;
    let header = &header[..header.len().min(MAX_HEADER)];
    // A line of the message must not be taken for the boundary.
    let mut boundary = format!("report-{id}");
    while memchr::memmem::find(header, boundary.as_bytes()).is_some() {
        boundary.push('-');
        boundary.push('x');
    }
    let (subject, action, opening) = match kind {
        Kind::Failed => (
            "Your message could not be delivered",
            "failed",
            "Your message could not be delivered to the recipients below.\r\n\
             It will not be tried again.",
        ),
        Kind::Delayed => (
            "Your message is delayed",
            "delayed",
            "Your message could not yet be delivered to the recipients below.\r\n\
             It is tried further; you need not send it again.",
        ),
    };
    let date = clock::rfc5322(now);
    let arrived = clock::rfc5322(UNIX_EPOCH + Duration::from_secs(envelope.created));
    let mut out = format!(
        "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\nTo: <{}>\r\nSubject: {subject}\r\n\
         Date: {date}\r\nMessage-ID: <report-{id}-{}@{host}>\r\nAuto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         {opening}\r\n\r\n",
        envelope.sender, envelope.tries
    );
    for (recipient, reply) in about {
        out.push_str(&format!("  {recipient}\r\n    {}\r\n", one_line(reply)));
    }
    out.push_str(&format!(
        "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; {host}\r\nArrival-Date: {arrived}\r\n"
    ));
    for (recipient, reply) in about {
        let kind = if recipient.is_ascii() {
            "rfc822"
        } else {
            "utf-8"
        };
        out.push_str(&format!(
            "\r\nFinal-Recipient: {kind}; {recipient}\r\nAction: {action}\r\nStatus: {}\r\n\
             Diagnostic-Code: smtp; {}\r\n",
            status(reply),
            one_line(reply)
        ));
    }
    out.push_str(&format!(
        "\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\n\r\n"
    ));
    let mut out = out.into_bytes();
    out.extend_from_slice(header);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

/// The enhanced status code in a reply, or the plain one that its class has.
fn status(reply: &str) -> String {
    let enhanced = reply.split(' ').find(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() == 3
            && ["2", "4", "5"].contains(&parts[0])
            && parts.iter().all(|part| {
                (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
            })
    });
    match (enhanced, reply.starts_with('5')) {
        (Some(status), _) => status.to_string(),
        (None, true) => "5.0.0".into(),
        (None, false) => "4.0.0".into(),
    }
}

fn one_line(reply: &str) -> String {
    let line: String = reply
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(400)
        .collect();
    if line.is_empty() {
        "no reply".into()
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::structure::{self, Inside};

    #[test]
    fn a_report_has_its_three_parts() {
        let envelope = Envelope::new("anna@x.org", vec!["b@y".into()]);
        let about = [("b@y".to_string(), "550 5.1.1 no\r\nsuch user".to_string())];
        let text = b"Subject: s\r\nX: report-1\r\n\r\nbody\r\n";
        let report = report(
            Kind::Failed,
            "mail.x.org",
            "1",
            &envelope,
            &about,
            text,
            SystemTime::now(),
        );
        let root = structure::parse(&report);
        let Inside::Parts(parts) = &root.inside else {
            panic!("no parts")
        };
        let kinds: Vec<String> = parts.iter().map(|part| part.kind().1).collect();
        assert_eq!(kinds, ["PLAIN", "DELIVERY-STATUS", "RFC822-HEADERS"]);
        let text = String::from_utf8(report).unwrap();
        assert!(
            text.contains("Status: 5.1.1\r\n")
                && text.contains("Diagnostic-Code: smtp; 550 5.1.1 no  such user\r\n")
        );
        assert!(!text.contains("body\r\n"));
        assert_eq!(status("552 too big"), "5.0.0");
        assert_eq!(status("connection refused 1.2.3.4"), "4.0.0");
    }
}
