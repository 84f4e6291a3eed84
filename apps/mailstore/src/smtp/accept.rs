//! Takes a message: into the mailboxes that are here, and into the queue for the
//! rest. When this has returned, what was taken is durable.

use std::sync::Arc;

use crate::directory::Route;
use crate::failure::Result;
use crate::maildir::account::{Account, INBOX};
use crate::queue::Envelope;
use crate::server::Server;

/// What became of the message for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Taken,
    /// The account's quota is used up.
    NoRoom,
    /// The disk did not do what it should; the client keeps the message.
    Failed,
}

/// One message on its way in.
pub struct Mail<'a> {
    pub sender: &'a str,
    /// Received and what else comes before it.
    pub prefix: &'a str,
    pub text: &'a [u8],
}

impl Mail<'_> {
    /// The file for one account.
    fn for_account(&self, account: &str) -> Vec<u8> {
        let head = format!(
            "Return-Path: <{}>\r\nDelivered-To: {account}\r\n{}",
            self.sender, self.prefix
        );
        [head.as_bytes(), self.text].concat()
    }
}

/// Takes the message for each recipient by itself, as LMTP reports it.
pub fn for_each(server: &Server, mail: &Mail, recipients: &[(String, Route)]) -> Vec<Fate> {
    let mut delivered: Vec<String> = Vec::new();
    recipients
        .iter()
        .map(
            |(_, route)| match one(server, mail, route, &mut delivered) {
                Ok(fate) => fate,
                Err(failure) => {
                    crate::log!("delivery: {failure}");
                    Fate::Failed
                }
            },
        )
        .collect()
}

fn one(server: &Server, mail: &Mail, route: &Route, delivered: &mut Vec<String>) -> Result<Fate> {
    if !route.remote.is_empty() {
        enqueue(server, mail, route.remote.clone())?;
    }
    for account in &route.local {
        if delivered.contains(&account.name) {
            continue; // one message to two names of one account is one message
        }
        if !deliver(account, mail)? {
            return Ok(Fate::NoRoom);
        }
        delivered.push(account.name.clone());
    }
    Ok(Fate::Taken)
}

/// Takes the message for all recipients, as SMTP reports it. What cannot be
/// delivered now, once something was, goes to the queue and is tried again.
pub fn for_all(server: &Server, mail: &Mail, recipients: &[(String, Route)]) -> Fate {
    let mut remote: Vec<String> = Vec::new();
    let mut local: Vec<&Arc<Account>> = Vec::new();
    for (_, route) in recipients {
        for address in &route.remote {
            if !remote.contains(address) {
                remote.push(address.clone());
            }
        }
        for account in &route.local {
            if !local.iter().any(|known| known.name == account.name) {
                local.push(account);
            }
        }
    }
    let mut taken = !remote.is_empty();
    if taken && let Err(failure) = enqueue(server, mail, remote) {
        crate::log!("delivery: {failure}");
        return Fate::Failed;
    }
    let mut later = Vec::new();
    let mut worst = Fate::Taken;
    for account in local {
        match deliver(account, mail) {
            Ok(true) => taken = true,
            Ok(false) => {
                later.push(account.name.clone());
                worst = Fate::NoRoom;
            }
            Err(failure) => {
                crate::log!("delivery: {failure}");
                later.push(account.name.clone());
                worst = Fate::Failed;
            }
        }
    }
    if later.is_empty() || !taken {
        return worst;
    }
    match enqueue(server, mail, later) {
        Ok(()) => Fate::Taken,
        Err(failure) => {
            crate::log!("delivery: {failure}");
            Fate::Failed
        }
    }
}

/// Whether there was room.
fn deliver(account: &Account, mail: &Mail) -> Result<bool> {
    let text = mail.for_account(&account.name);
    if !account.has_room_for(text.len() as u64)? {
        return Ok(false);
    }
    account.deliver(INBOX, &text)?;
    Ok(true)
}

fn enqueue(server: &Server, mail: &Mail, recipients: Vec<String>) -> Result<()> {
    let text = [mail.prefix.as_bytes(), mail.text].concat();
    server
        .queue
        .add(Envelope::new(mail.sender, recipients), &text)
}
