//! The messages that the undo system writes: bounces to senders, explanations to users.

use undo::{Call, Outcome, Status, when};

use crate::settings::Settings;
use crate::store::Shown;
use crate::verbs::{Act, Verb};

/// A notice that a delivery has failed so far, or for good (RFC 3464 tells the form). `None`: its
/// sender is nobody, or there was no failure.
pub fn bounce(
    settings: &Settings,
    verb: &Verb,
    outcome: &Outcome<Shown>,
    is_final: bool,
) -> Option<(String, Vec<u8>)> {
    let Act::Deliver {
        id,
        from,
        to,
        body,
        window_s,
        ..
    } = &verb.act
    else {
        return None;
    };
    let Status::Failed(why) = &outcome.status else {
        return None;
    };
    if from.is_empty() {
        return None;
    }
    let host = &settings.hostname;
    let (subject, action, text) = match is_final {
        true => (
            "Undelivered mail returned to sender",
            "failed",
            "It could not be delivered, and will not be tried again.".to_owned(),
        ),
        false => (
            "Delayed mail (still being retried)",
            "delayed",
            format!(
                "It could not be delivered yet. You need not send it again: it will be tried for\r\n\
                 {} more, and you will be told if that fails.",
                span(*window_s)
            ),
        ),
    };
    let header: Vec<u8> = header_of(body).to_vec();
    let boundary = format!("=_{id:016x}");
    let mut message = format!(
        "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
         To: <{from}>\r\n\
         Subject: {subject}\r\n\
         Date: {}\r\n\
         Message-ID: <{id:016x}.{action}@{host}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         \r\n\
         Your message to <{to}> has met a problem. {text}\r\n\
         \r\n\
         The mail server said: {why}\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: message/delivery-status\r\n\
         \r\n\
         Reporting-MTA: dns; {host}\r\n\
         \r\n\
         Final-Recipient: rfc822; {to}\r\n\
         Action: {action}\r\n\
         Status: {}\r\n\
         Diagnostic-Code: smtp; {why}\r\n\
         \r\n\
         --{boundary}\r\n\
         Content-Type: text/rfc822-headers\r\n\
         \r\n",
        date(when::now_us()),
        if is_final { "5.0.0" } else { "4.0.0" },
    )
    .into_bytes();
    message.extend(header);
    message.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    Some((from.clone(), message))
}

/// An explanation for a user's INBOX.
pub fn explanation(
    settings: &Settings,
    user: &str,
    call: &Call<'_, Verb>,
    what: &str,
    done: Option<&str>,
) -> Vec<u8> {
    let host = &settings.hostname;
    let done = match done {
        Some(done) => format!("What was done about it: {done}.\r\n\r\n"),
        None => String::new(),
    };
    format!(
        "From: Mail system <postmaster@{host}>\r\n\
         To: {user}\r\n\
         Subject: About changes in your mailbox\r\n\
         Date: {}\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         \r\n\
         The operator of this mail system had to repair it, and went back in time for that.\r\n\
         Something that you have seen at {} is different now. We apologize.\r\n\
         \r\n\
         What differs: {what}.\r\n\
         \r\n\
         {done}\
         This was necessary because the earlier state was the result of an error. Mail that you\r\n\
         have sent or received is not lost by the repair. If something is missing that you need,\r\n\
         please ask postmaster@{host} and mention number {}.\r\n",
        date(when::now_us()),
        when::show(call.time_us),
        call.lsn,
    )
    .into_bytes()
}

fn header_of(body: &[u8]) -> &[u8] {
    let end = body
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(body.len(), |at| at + 2);
    &body[..end.min(8192)]
}

fn span(seconds: u64) -> String {
    match seconds {
        s if s >= 7200 => format!("{} hours", s / 3600),
        s if s >= 120 => format!("{} minutes", s / 60),
        s => format!("{s} seconds"),
    }
}

/// A date for a header (RFC 5322, section 3.3).
pub fn date(us: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let shown = when::show(us);
    let day = DAYS[(us / 86_400_000_000 % 7) as usize];
    format!(
        "{day}, {} {} {} {} +0000",
        &shown[8..10],
        month(&shown),
        &shown[..4],
        &shown[11..19]
    )
}

/// A date as IMAP writes it: `29-Nov-2026 12:30:00 +0000`.
pub fn imap_date(us: u64) -> String {
    let shown = when::show(us);
    format!(
        "{}-{}-{} {} +0000",
        &shown[8..10],
        month(&shown),
        &shown[..4],
        &shown[11..19]
    )
}

fn month(shown: &str) -> &'static str {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    shown[5..7]
        .parse::<usize>()
        .ok()
        .and_then(|m| MONTHS.get(m - 1))
        .copied()
        .unwrap_or("Jan")
}

/// The line that says how a message came to us.
pub fn received(settings: &Settings, client: &str, peer: &str, protocol: &str, us: u64) -> String {
    let host = &settings.hostname;
    format!(
        "Received: from {client} ({peer})\r\n by {host} with {protocol}; {}\r\n",
        date(us)
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_have_the_form_of_the_rfcs() {
        assert_eq!(
            super::date(1_709_164_800_000_000),
            "Thu, 29 Feb 2024 00:00:00 +0000"
        );
        assert_eq!(
            super::imap_date(1_709_164_800_000_000),
            "29-Feb-2024 00:00:00 +0000"
        );
    }
}
