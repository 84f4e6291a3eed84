//! Tries what is in the queue, again and again, until it is delivered or given up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bounce::{self, Kind};
use super::client::{self, Answer};
use super::{Envelope, now_seconds};
use crate::directory::NoRoute;
use crate::failure::Result;
use crate::maildir::account::{Account, INBOX};
use crate::server::{Server, on_disk};

/// Messages that are tried at once.
const AT_ONCE: usize = 8;

/// Where one recipient's mail goes today; settings may have changed since.
enum Way {
    Here(Vec<Arc<Account>>),
    Relay,
    Nowhere(String),
}

/// Runs until the server stops.
pub async fn run(server: Arc<Server>) {
    let mut stop = server.stop.clone();
    loop {
        let due = server.queue.due(now_seconds());
        let mut rest = due.into_iter();
        loop {
            let mut tries = tokio::task::JoinSet::new();
            for (id, envelope) in rest.by_ref().take(AT_ONCE) {
                let server = server.clone();
                tries.spawn(async move { attempt(&server, &id, envelope).await });
            }
            if tries.is_empty() {
                break;
            }
            while tries.join_next().await.is_some() {}
            if *stop.borrow() {
                return;
            }
        }
        // Asked for now: what was tried in vain has a new time.
        let wait = server
            .queue
            .next_try()
            .map_or(Duration::from_secs(3600), |next| {
                Duration::from_secs(next.saturating_sub(now_seconds()).max(1))
            });
        tokio::select! {
            () = server.queue.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn attempt(server: &Server, id: &str, mut envelope: Envelope) {
    let text = match on_disk(|| server.queue.message(id)) {
        Ok(text) => text,
        Err(failure) => {
            crate::log!("queue {id}: {failure}");
            put_off(server, &mut envelope);
            record(server, id, envelope);
            return;
        }
    };
    envelope.recipients = expand(server, &envelope.recipients);
    let answers = deliver(server, id, &envelope, &text).await;
    if *server.stop.borrow() && !answers.contains(&Answer::Taken) {
        return; // the server stops: it is tried again when it is back
    }
    let mut failed = Vec::new();
    let mut left = Vec::new();
    for (recipient, answer) in std::mem::take(&mut envelope.recipients)
        .into_iter()
        .zip(answers)
    {
        match answer {
            Answer::Taken => crate::log!("queue {id}: delivered to {recipient}"),
            Answer::Never(reply) => failed.push((recipient, reply)),
            Answer::NotNow(reply) => left.push((recipient, reply)),
        }
    }
    let age = Duration::from_secs(now_seconds().saturating_sub(envelope.created));
    if age >= server.settings.queue.give_up_after {
        failed.append(&mut left);
    }
    if let Some((_, reply)) = left.first() {
        envelope.last_reply = reply.clone();
    }
    let mut told = Ok(());
    if !failed.is_empty() {
        told = tell(server, Kind::Failed, id, &envelope, &failed, &text);
    } else if !left.is_empty() && !envelope.warned && age >= server.settings.queue.warn_after {
        envelope.warned = true;
        told = tell(server, Kind::Delayed, id, &envelope, &left, &text);
    }
    if let Err(failure) = told {
        // Whoever cannot be told now is told after the next try.
        crate::log!("queue {id}: {failure}");
        envelope.warned = false;
        left.append(&mut failed);
    }
    envelope.recipients = left.into_iter().map(|(recipient, _)| recipient).collect();
    put_off(server, &mut envelope);
    record(server, id, envelope);
}

fn put_off(server: &Server, envelope: &mut Envelope) {
    let waits = &server.settings.queue.retry;
    let wait = waits.get(envelope.tries as usize).or(waits.last()).copied();
    envelope.tries += 1;
    envelope.next_try = now_seconds() + wait.unwrap_or(Duration::from_secs(900)).as_secs();
}

fn record(server: &Server, id: &str, envelope: Envelope) {
    if let Err(failure) = on_disk(|| server.queue.update(id, envelope)) {
        crate::log!("queue {id}: {failure}");
    }
}

async fn deliver(server: &Server, id: &str, envelope: &Envelope, text: &[u8]) -> Vec<Answer> {
    let mut answers = vec![Answer::NotNow(String::new()); envelope.recipients.len()];
    let mut relayed = Vec::new();
    for (at, recipient) in envelope.recipients.iter().enumerate() {
        match way(server, recipient) {
            Way::Relay => relayed.push(at),
            Way::Nowhere(reply) => answers[at] = Answer::Never(reply),
            Way::Here(accounts) => {
                answers[at] = on_disk(|| into_mailboxes(&accounts, envelope, text)).unwrap_or_else(
                    |failure| {
                        crate::log!("queue {id}: {failure}");
                        Answer::NotNow("451 4.3.0 The message could not be stored".into())
                    },
                );
            }
        }
    }
    if let (Some(relay), false) = (&server.settings.relay, relayed.is_empty()) {
        let recipients: Vec<String> = relayed
            .iter()
            .map(|at| envelope.recipients[*at].clone())
            .collect();
        let host = &server.settings.hostname;
        let stop = server.stop.clone();
        let said = client::send(relay, host, &envelope.sender, &recipients, text, stop).await;
        for (at, answer) in relayed.into_iter().zip(said) {
            answers[at] = answer;
        }
    }
    answers
}

/// Follows aliases, as they are today, to accounts and addresses elsewhere.
fn expand(server: &Server, recipients: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for recipient in recipients {
        let targets = match server.directory.route(recipient) {
            Ok(route) => {
                let local = route.local.iter().map(|account| account.name.clone());
                local.chain(route.remote.iter().cloned()).collect()
            }
            Err(_) => vec![recipient.clone()],
        };
        for target in targets {
            if !all.contains(&target) {
                all.push(target);
            }
        }
    }
    all
}

/// The way to a recipient that `expand` gave.
fn way(server: &Server, recipient: &str) -> Way {
    match server.directory.route(recipient) {
        Ok(route) => Way::Here(route.local),
        Err(NoRoute::NoSuchUser) => Way::Nowhere("550 5.1.1 There is no such user here".into()),
        Err(NoRoute::NotOurs) if server.settings.relay.is_some() => Way::Relay,
        Err(NoRoute::NotOurs) => {
            Way::Nowhere("550 5.4.4 This server has no way to that domain".into())
        }
    }
}

fn into_mailboxes(accounts: &[Arc<Account>], envelope: &Envelope, text: &[u8]) -> Result<Answer> {
    for account in accounts {
        let head = format!(
            "Return-Path: <{}>\r\nDelivered-To: {}\r\n",
            envelope.sender, account.name
        );
        let text = [head.as_bytes(), text].concat();
        if !account.has_room_for(text.len() as u64)? {
            return Ok(Answer::NotNow(
                "452 4.2.2 The account's quota is used up".into(),
            ));
        }
        account.deliver(INBOX, &text)?;
    }
    Ok(Answer::Taken)
}

/// Sends the sender a report: into a mailbox here, or by the queue.
fn tell(
    server: &Server,
    kind: Kind,
    id: &str,
    envelope: &Envelope,
    about: &[(String, String)],
    text: &[u8],
) -> Result<()> {
    for (recipient, reply) in about {
        let verb = if kind == Kind::Failed {
            "failed"
        } else {
            "delayed"
        };
        crate::log!("queue {id}: {verb} for {recipient}: {reply}");
    }
    if envelope.sender.is_empty() {
        return Ok(()); // a report about a report would go on for ever
    }
    let host = &server.settings.hostname;
    let report = bounce::report(kind, host, id, envelope, about, text, SystemTime::now());
    // The report goes by the queue, like any mail, and so survives what this does not.
    on_disk(|| {
        server
            .queue
            .add(Envelope::new("", vec![envelope.sender.clone()]), &report)
    })
}
