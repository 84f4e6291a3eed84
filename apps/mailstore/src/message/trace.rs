//! The fields that a server puts before a message it takes (RFC 5321, 4.4).

use std::time::SystemTime;

use super::{header, lines};
use crate::clock;

/// A message that went through so many servers goes in a circle (RFC 5321, 6.3).
const MAX_HOPS: usize = 60;

/// How the message came.
pub struct Arrival<'a> {
    pub helo: &'a str,
    pub peer: &'a str,
    pub by: &'a str,
    /// `ESMTPS` and its like (RFC 3848).
    pub with: &'a str,
    pub id: &'a str,
    pub time: SystemTime,
}

pub fn received(arrival: &Arrival) -> String {
    let Arrival {
        helo,
        peer,
        by,
        with,
        id,
        time,
    } = arrival;
    let from = if peer.contains(['.', ':']) {
        format!("{helo} ([{peer}])")
    } else {
        helo.to_string()
    };
    format!(
        "Received: from {from}\r\n\tby {by} with {with} id {id};\r\n\t{}\r\n",
        clock::rfc5322(*time)
    )
}

pub fn goes_in_a_circle(text: &[u8]) -> bool {
    let header = lines::split_header(text).0;
    header::fields(header)
        .filter(|field| field.is("received"))
        .count()
        > MAX_HOPS
}

/// The fields that a submitted message must have and lacks (RFC 6409, section 8).
pub fn missing_fields(text: &[u8], host: &str, id: &str, time: SystemTime) -> String {
    let header = lines::split_header(text).0;
    let mut fields = String::new();
    if header::first(header, "date").is_none() {
        fields.push_str(&format!("Date: {}\r\n", clock::rfc5322(time)));
    }
    if header::first(header, "message-id").is_none() {
        fields.push_str(&format!("Message-ID: <{id}@{host}>\r\n"));
    }
    fields
}
