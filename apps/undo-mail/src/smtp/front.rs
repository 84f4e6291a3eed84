//! The SMTP server that clients see (RFC 5321).
//!
//! It is a server rather than a proxy: it ends the transaction with the client before the real
//! server gets the message, and a message that it has answered 250 for is on stable storage. So a
//! real server that is broken, or an undo cycle that is under way, loses no mail. The price is
//! that we must decide whom to take mail for: addresses that are none, and attempts to relay, are
//! refused; everybody else is taken, for the real server may be wrong (paper, section 4.2).

use std::io::{self, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::read_line;
use crate::bytes::Bytes;
use crate::names;
use crate::notices;
use crate::store::Manager;
use crate::verbs::{Act, Verb};

const LONGEST_LINE: usize = 4096;
const MOST_RECIPIENTS: usize = 1000;
const MOST_ERRORS: usize = 50;

/// Serves clients from now on, each in a thread.
pub fn serve(manager: Manager, listener: TcpListener) -> io::Result<()> {
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let manager = manager.clone();
            let _ = std::thread::Builder::new()
                .name("smtp".into())
                .spawn(move || {
                    // A client that goes away in the middle is no event.
                    let _ = Client::new(manager, stream).and_then(|mut client| client.serve());
                });
        }
    };
    std::thread::Builder::new()
        .name("smtp-accept".into())
        .spawn(accept)
        .map(drop)
}

struct Client {
    manager: Manager,
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    peer: String,
    hello: Option<(String, &'static str)>,
    from: Option<(String, String)>,
    to: Vec<String>,
    errors: usize,
}

impl Client {
    fn new(manager: Manager, stream: TcpStream) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        stream.set_write_timeout(Some(Duration::from_secs(300)))?;
        Ok(Client {
            peer: stream
                .peer_addr()
                .map_or_else(|_| "unknown".into(), |a| a.ip().to_string()),
            writer: BufWriter::new(stream.try_clone()?),
            reader: BufReader::new(stream),
            manager,
            hello: None,
            from: None,
            to: Vec::new(),
            errors: 0,
        })
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        if line.starts_with('5') {
            self.errors += 1;
        }
        write!(self.writer, "{line}\r\n")?;
        // With PIPELINING a client sends several commands at once; it gets one packet back.
        if self.reader.buffer().is_empty() {
            self.writer.flush()
        } else {
            Ok(())
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let host = self.manager.service().settings.hostname.clone();
        self.say(&format!("220 {host} ESMTP"))?;
        loop {
            let Some(line) = read_line(&mut self.reader, LONGEST_LINE)? else {
                return Ok(());
            };
            let line = match line.map(String::from_utf8) {
                Ok(Ok(line)) => line,
                Ok(Err(_)) => {
                    self.say("500 5.5.2 the command is not UTF-8")?;
                    continue;
                }
                Err(why) => {
                    self.say(&format!("500 5.5.6 {why}"))?;
                    continue;
                }
            };
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word.to_ascii_uppercase().as_str() {
                "EHLO" => self.hello(&host, rest, true)?,
                "HELO" => self.hello(&host, rest, false)?,
                "MAIL" => self.mail(rest)?,
                "RCPT" => self.recipient(rest)?,
                "DATA" => self.data(rest)?,
                "RSET" => {
                    self.reset();
                    self.say("250 2.0.0 forgotten")?;
                }
                "NOOP" => self.say("250 2.0.0 done")?,
                "VRFY" => self.say("252 2.5.2 send some mail, it will be tried")?,
                "HELP" => self.say("214 2.0.0 see RFC 5321")?,
                "QUIT" => {
                    self.say("221 2.0.0 goodbye")?;
                    return self.writer.flush();
                }
                _ => self.say("500 5.5.2 there is no such command")?,
            }
            if self.errors > MOST_ERRORS {
                self.say("421 4.7.0 too many errors")?;
                return self.writer.flush();
            }
        }
    }

    fn hello(&mut self, host: &str, name: &str, extended: bool) -> io::Result<()> {
        if name.trim().is_empty() || name.contains(|c: char| c.is_control()) {
            return self.say("501 5.5.4 say who you are: EHLO name");
        }
        self.reset();
        self.hello = Some((
            name.trim().to_owned(),
            if extended { "ESMTP" } else { "SMTP" },
        ));
        if !extended {
            return self.say(&format!("250 {host}"));
        }
        let longest = self.manager.service().settings.smtp.longest_message;
        self.say(&format!(
            "250-{host}\r\n250-PIPELINING\r\n250-SIZE {longest}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
             250 ENHANCEDSTATUSCODES"
        ))
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    fn mail(&mut self, rest: &str) -> io::Result<()> {
        if self.hello.is_none() {
            return self.say("503 5.5.1 say EHLO first");
        }
        if self.from.is_some() {
            return self.say("503 5.5.1 there is a sender already; RSET forgets it");
        }
        let Some((address, options)) = path(rest, "FROM:") else {
            return self.say("501 5.5.4 the form is MAIL FROM:<address>");
        };
        if !address.is_empty() && !is_address(&address) {
            return self.say("501 5.1.7 this is no address");
        }
        let mut kept = Vec::new();
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match (
                name.to_ascii_uppercase().as_str(),
                value.to_ascii_uppercase().as_str(),
            ) {
                ("SIZE", _) => {
                    let longest = self.manager.service().settings.smtp.longest_message;
                    match value.parse::<usize>() {
                        Ok(size) if size <= longest => {}
                        Ok(_) => return self.say("552 5.3.4 the message is too large"),
                        Err(_) => return self.say("501 5.5.4 SIZE is a number of bytes"),
                    }
                }
                ("BODY", body @ ("7BIT" | "8BITMIME")) => kept.push(format!("BODY={body}")),
                ("SMTPUTF8", "") => kept.push("SMTPUTF8".into()),
                _ => return self.say("555 5.5.4 there is no such option"),
            }
        }
        self.from = Some((address, kept.join(" ")));
        self.say("250 2.1.0 go on")
    }

    fn recipient(&mut self, rest: &str) -> io::Result<()> {
        let Some((from, _)) = &self.from else {
            return self.say("503 5.5.1 say MAIL first");
        };
        let Some((address, options)) = path(rest, "TO:") else {
            return self.say("501 5.5.4 the form is RCPT TO:<address>");
        };
        if !is_address(&address) {
            return self.say("553 5.1.3 this is no address");
        }
        if !options.trim().is_empty() {
            return self.say("555 5.5.4 there is no such option");
        }
        if self.to.len() == MOST_RECIPIENTS {
            return self.say("452 4.5.3 too many recipients");
        }
        if self.is_relay(&from.clone(), &address) {
            return self.say("550 5.7.1 this server takes no mail for others");
        }
        self.to.push(address);
        self.say("250 2.1.5 go on")
    }

    /// Whether somebody tries to send mail to others through us.
    fn is_relay(&self, from: &str, to: &str) -> bool {
        let store = self.manager.service();
        let domains = &store.settings.smtp.domains;
        let domain = to.rsplit_once('@').map(|(_, domain)| domain);
        if !domains.is_empty() {
            return !domain
                .is_none_or(|d| domains.iter().any(|known| known.eq_ignore_ascii_case(d)));
        }
        // If the real server cannot be asked, the mail is taken: it may be what is repaired.
        self.manager.look(|phase| {
            phase == undo::Phase::Running
                && store.smtp.would_take(from, to).is_ok_and(|reply| {
                    let text = reply.text.to_lowercase();
                    reply.code >= 500 && (text.contains("5.7.1") || text.contains("relay"))
                })
        })
    }

    fn data(&mut self, rest: &str) -> io::Result<()> {
        if !rest.trim().is_empty() {
            return self.say("501 5.5.4 DATA stands alone");
        }
        let (Some((from, options)), false) = (self.from.clone(), self.to.is_empty()) else {
            return self.say("503 5.5.1 say MAIL and RCPT first");
        };
        write!(self.writer, "354 end with a dot on a line of its own\r\n")?;
        self.writer.flush()?;
        let Some(text) = self.message()? else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the client has gone",
            ));
        };
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                self.reset();
                return self.say(why);
            }
        };
        let store = self.manager.service();
        let (name, protocol) = self.hello.clone().unwrap_or_default();
        let mut body = notices::received(
            &store.settings,
            &name,
            &self.peer,
            protocol,
            undo::when::now_us(),
        )
        .into_bytes();
        body.extend(names::without_id(&text));
        let window_s = store.settings.smtp.window_s;
        // One verb for each recipient: each succeeds or fails, and is tried again, by itself.
        let verbs: Vec<Verb> = self
            .to
            .iter()
            .map(|to| {
                let act = Act::Deliver {
                    id: names::fresh(),
                    from: from.clone(),
                    to: to.clone(),
                    body: Bytes(body.clone()),
                    options: options.clone(),
                    window_s,
                };
                Verb::new("", act)
            })
            .collect();
        let accepted = self.manager.accept_all(&verbs);
        self.reset();
        match accepted {
            Ok(arrivals) => self.say(&format!("250 2.0.0 taken as {}", arrivals[0])),
            Err(error) => {
                eprintln!("undo-mail: {error}");
                self.say("451 4.3.0 the message cannot be stored now, try again later")
            }
        }
    }

    /// Reads up to the final dot. `None`: the client has gone.
    fn message(&mut self) -> io::Result<Option<Result<Vec<u8>, &'static str>>> {
        let longest = self.manager.service().settings.smtp.longest_message;
        let mut text = Vec::new();
        let mut too_long = false;
        loop {
            // A line of a message may be longer than one of a command.
            let Some(line) = read_line(&mut self.reader, longest.max(LONGEST_LINE))? else {
                return Ok(None);
            };
            let Ok(line) = line else {
                too_long = true;
                continue;
            };
            if line == b"." {
                break;
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            too_long |= text.len() + line.len() > longest;
            if !too_long {
                text.extend_from_slice(line);
                text.extend_from_slice(b"\r\n");
            }
        }
        Ok(Some(if too_long {
            Err("552 5.3.4 the message is too large")
        } else {
            Ok(text)
        }))
    }
}

/// Takes `FROM:<address> options` apart.
fn path(rest: &str, keyword: &str) -> Option<(String, String)> {
    let prefix = rest.get(..keyword.len())?;
    if !prefix.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest[keyword.len()..].trim_start();
    let rest = rest.strip_prefix('<')?;
    // A quoted local part may hold a bracket.
    let mut quoted = false;
    let end = rest.char_indices().find_map(|(at, c)| {
        if c == '"' {
            quoted = !quoted;
        }
        (c == '>' && !quoted).then_some(at)
    })?;
    let address = &rest[..end];
    // A source route is ignored (RFC 5321, appendix C).
    let address = match address.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => address,
    };
    Some((address.to_owned(), rest[end + 1..].to_owned()))
}

fn is_address(address: &str) -> bool {
    let printable = |c: char| !c.is_control() && !c.is_whitespace() && c != '<' && c != '>';
    match address.rsplit_once('@') {
        Some((local, domain)) => {
            let part =
                |p: &str| !p.is_empty() && p.chars().all(|c| c.is_alphanumeric() || c == '-');
            let literal = domain.starts_with('[') && domain.ends_with(']');
            let quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
            !local.is_empty()
                && local.len() <= 64
                && address.len() <= 254
                && (quoted && !local.contains(char::is_control) || local.chars().all(printable))
                && (literal && domain.chars().all(printable) || domain.split('.').all(part))
        }
        None => address.eq_ignore_ascii_case("postmaster"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses() {
        let read = |text: &str| path(text, "FROM:");
        assert_eq!(read("FROM:<>"), Some((String::new(), String::new())));
        assert_eq!(
            read("from: <a@b.c> SIZE=3"),
            Some(("a@b.c".into(), " SIZE=3".into()))
        );
        assert_eq!(read("FROM:<@x,@y:a@b>").unwrap().0, "a@b");
        assert_eq!(read("FROM:<\"a>b\"@c>").unwrap().0, "\"a>b\"@c");
        for bad in ["", "FROM", "FROM:a@b", "TO:<a@b>", "FROM:<a@b", "FRÖM:<a>"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for good in [
            "a@b",
            "a.b+c@d-e.org",
            "postmaster",
            "a@[127.0.0.1]",
            "ü@ü.de",
            "\"a b\"@c",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["a", "@b", "a@", "a@b..c", "a b@c", "a@b\u{7}", "a@b/c", ""] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
