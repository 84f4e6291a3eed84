//! What is measured. Each function works once over a server and tells a rate; it
//! leaves the mailboxes as it found them.

use std::time::{Duration, Instant};

use crate::client::Client;

pub struct Server {
    pub name: String,
    smtp: Option<String>,
    lmtp: Option<String>,
    imap: String,
    user: String,
    password: String,
}

impl Server {
    pub fn parse(text: &str) -> Result<Server, String> {
        let parts: Vec<&str> = text.split(',').collect();
        let [name, smtp, lmtp, imap, user, password] = parts.as_slice() else {
            return Err(format!("{text}: write NAME,SMTP,LMTP,IMAP,USER,PASSWORD"));
        };
        let place = |text: &str| (text != "-").then(|| text.to_string());
        Ok(Server {
            name: name.to_string(),
            smtp: place(smtp),
            lmtp: place(lmtp),
            imap: imap.to_string(),
            user: user.to_string(),
            password: password.to_string(),
        })
    }

    fn login(&self) -> Result<Client, String> {
        Client::login(&self.imap, &self.user, &self.password)
    }

    /// Logged in, with INBOX selected.
    fn selected(&self) -> Result<Client, String> {
        let mut client = self.login()?;
        client.imap("SELECT INBOX", "")?;
        Ok(client)
    }

    /// Messages in INBOX.
    fn count(&self, client: &mut Client) -> Result<usize, String> {
        let (_, line) = client.imap("STATUS INBOX (MESSAGES)", "MESSAGES ")?;
        let line = line.ok_or("STATUS without an answer")?;
        let number = line
            .split("MESSAGES ")
            .nth(1)
            .and_then(|rest| rest.split(')').next());
        number
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("no count in {line:?}"))
    }

    fn empty(&self) -> Result<(), String> {
        let mut client = self.selected()?;
        client.imap("STORE 1:* +FLAGS.SILENT (\\Deleted)", "").ok();
        client.imap("EXPUNGE", "")?;
        client.imap("LOGOUT", "").ok();
        Ok(())
    }

    fn fill(&self, messages: usize) -> Result<(), String> {
        let mut client = self.login()?;
        let text = text();
        for _ in 0..messages {
            client.send(format!("x APPEND INBOX {{{}+}}\r\n{text}\r\n", text.len()).as_bytes())?;
            client.answer("APPEND", "")?;
        }
        Ok(())
    }
}

/// A rate for each time it was taken; none if the server has not what it takes.
type Measure = fn(&Server, usize, usize) -> Result<Option<f64>, String>;

pub const MEASURES: [(&str, Measure); 8] = [
    ("deliveries by LMTP", by_lmtp),
    ("deliveries by SMTP, until visible", by_smtp),
    ("fetches of whole messages", fetches),
    ("fetches of all messages at once", fetch_all),
    ("fetches of flags of all at once", fetch_flags),
    ("flags set one by one", stores),
    ("appends", appends),
    ("sessions that find nothing new", empty_sessions),
];

fn text() -> String {
    let line = "The quick brown fox jumps over the lazy dog, again and again and again.\r\n";
    format!(
        "From: Anna <anna@example.net>\r\nTo: bob@example.net\r\nSubject: a message\r\n\
         Message-ID: <1@example.net>\r\nDate: Sun, 29 Nov 2026 10:00:00 +0000\r\n\r\n{}",
        line.repeat(4096 / line.len())
    )
}

/// Runs the work on several threads; work done a second.
fn shared(
    total: usize,
    connections: usize,
    work: impl Fn(usize) -> Result<(), String> + Sync,
) -> Result<f64, String> {
    let begun = Instant::now();
    let share = total.div_ceil(connections);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| work(share)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread died".to_string())?)
    })?;
    Ok((share * connections) as f64 / begun.elapsed().as_secs_f64())
}

fn transactions(place: &str, hello: &str, user: &str, share: usize) -> Result<(), String> {
    let mut client = Client::connect(place)?;
    client.reply("220")?;
    client.smtp(hello, "250")?;
    let text = format!("{}.\r\n", text());
    for _ in 0..share {
        client.smtp("MAIL FROM:<anna@example.net>", "250")?;
        client.smtp(&format!("RCPT TO:<{user}>"), "250")?;
        client.smtp("DATA", "354")?;
        client.send(text.as_bytes())?;
        client.reply("250")?;
    }
    client.smtp("QUIT", "221")
}

fn by_lmtp(server: &Server, messages: usize, connections: usize) -> Result<Option<f64>, String> {
    let Some(place) = &server.lmtp else {
        return Ok(None);
    };
    let rate = shared(messages, connections, |share| {
        transactions(place, "LHLO bench", &server.user, share)
    })?;
    server.empty()?;
    Ok(Some(rate))
}

fn by_smtp(server: &Server, messages: usize, connections: usize) -> Result<Option<f64>, String> {
    let Some(place) = &server.smtp else {
        return Ok(None);
    };
    let mut client = server.login()?;
    let before = server.count(&mut client)?;
    let begun = Instant::now();
    shared(messages, connections, |share| {
        transactions(place, "EHLO bench", &server.user, share)
    })?;
    let total = messages.div_ceil(connections) * connections;
    while server.count(&mut client)? < before + total {
        if begun.elapsed() > Duration::from_secs(120) {
            return Err("messages did not come".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    server.empty()?;
    Ok(Some(rate))
}

fn fetches(server: &Server, messages: usize, connections: usize) -> Result<Option<f64>, String> {
    server.fill(messages)?;
    let rate = shared(messages * 4, connections, |share| {
        let mut client = server.selected()?;
        for at in 0..share {
            let number = at * 7 % messages + 1;
            let (octets, _) = client.imap(&format!("FETCH {number} (BODY.PEEK[])"), "")?;
            if octets < 4000 {
                return Err(format!("message {number} has {octets} octets"));
            }
        }
        Ok(())
    })?;
    server.empty()?;
    Ok(Some(rate))
}

fn fetch_all(server: &Server, messages: usize, connections: usize) -> Result<Option<f64>, String> {
    server.fill(messages)?;
    let rate = shared(connections * 4, connections, |share| {
        let mut client = server.selected()?;
        for _ in 0..share {
            client.imap("FETCH 1:* (UID FLAGS BODY.PEEK[])", "")?;
        }
        Ok(())
    })?;
    server.empty()?;
    Ok(Some(rate * messages as f64))
}

fn fetch_flags(
    server: &Server,
    messages: usize,
    connections: usize,
) -> Result<Option<f64>, String> {
    server.fill(messages)?;
    let rate = shared(connections * 10, connections, |share| {
        let mut client = server.selected()?;
        for _ in 0..share {
            client.imap("FETCH 1:* (UID FLAGS)", "")?;
        }
        Ok(())
    })?;
    server.empty()?;
    Ok(Some(rate * messages as f64))
}

/// One connection: several in one mailbox tell each other of each change.
fn stores(server: &Server, messages: usize, _: usize) -> Result<Option<f64>, String> {
    server.fill(messages)?;
    let rate = shared(messages, 1, |share| {
        let mut client = server.selected()?;
        for at in 0..share {
            client.imap(&format!("STORE {} +FLAGS.SILENT (\\Flagged)", at + 1), "")?;
        }
        Ok(())
    })?;
    server.empty()?;
    Ok(Some(rate))
}

fn appends(server: &Server, messages: usize, _: usize) -> Result<Option<f64>, String> {
    let begun = Instant::now();
    server.fill(messages)?;
    let rate = messages as f64 / begun.elapsed().as_secs_f64();
    server.empty()?;
    Ok(Some(rate))
}

fn empty_sessions(
    server: &Server,
    messages: usize,
    connections: usize,
) -> Result<Option<f64>, String> {
    server.fill(50)?;
    let rate = shared(messages, connections, |share| {
        for _ in 0..share {
            let mut client = server.selected()?;
            client.imap("UID SEARCH UNSEEN", "")?;
            client.imap("LOGOUT", "")?;
        }
        Ok(())
    })?;
    server.empty()?;
    Ok(Some(rate))
}
