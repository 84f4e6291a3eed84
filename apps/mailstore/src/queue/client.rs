//! Hands a message to the relay (RFC 5321, as the client).

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::net::connection::{Connection, Trouble};
use crate::net::tls;
use crate::sasl;
use crate::settings::{Relay, RelayTls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);
const MAX_LINE: usize = 4096;
const MAX_REPLY_LINES: usize = 100;

/// What the relay said of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// Worth another try.
    NotNow(String),
    Never(String),
}

struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" "))
    }

    fn answer(&self) -> Answer {
        match self.code {
            200..=399 => Answer::Taken,
            500..=599 => Answer::Never(self.text()),
            _ => Answer::NotNow(self.text()),
        }
    }

    fn offers(&self, keyword: &str) -> bool {
        self.lines.iter().any(|line| {
            line.split(' ')
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case(keyword))
        })
    }
}

/// What stopped a whole conversation, for all recipients alike.
enum Stopped {
    Trouble(String),
    Refused(Reply),
}

impl From<Trouble> for Stopped {
    fn from(trouble: Trouble) -> Self {
        Stopped::Trouble(trouble.to_string())
    }
}

/// Sends the message; an answer for each recipient.
pub async fn send(
    relay: &Relay,
    host: &str,
    sender: &str,
    recipients: &[String],
    text: &[u8],
    stop: watch::Receiver<bool>,
) -> Vec<Answer> {
    let all = |answer: Answer| vec![answer; recipients.len()];
    match conversation(relay, host, sender, recipients, text, stop).await {
        Ok(answers) => answers,
        Err(Stopped::Refused(reply)) => all(reply.answer()),
        Err(Stopped::Trouble(why)) => all(Answer::NotNow(format!(
            "relay {}:{}: {why}",
            relay.host, relay.port
        ))),
    }
}

async fn conversation(
    relay: &Relay,
    host: &str,
    sender: &str,
    recipients: &[String],
    text: &[u8],
    stop: watch::Receiver<bool>,
) -> Result<Vec<Answer>, Stopped> {
    let connecting = TcpStream::connect((relay.host.as_str(), relay.port));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| Stopped::Trouble("it does not answer".into()))?
        .map_err(|cause| Stopped::Trouble(cause.to_string()))?;
    let mut connection = Connection::tcp(stream, stop, PATIENCE);
    expect(read_reply(&mut connection).await?)?;
    let mut hello = expect(ask(&mut connection, &format!("EHLO {host}")).await?)?;
    if relay.tls == RelayTls::Required {
        let connector = tls::connector(&relay.authorities).map_err(Stopped::Trouble)?;
        expect(ask(&mut connection, "STARTTLS").await?)?;
        connection.connect_tls(&connector, &relay.host).await?;
        hello = expect(ask(&mut connection, &format!("EHLO {host}")).await?)?;
    }
    if let Some((user, password)) = &relay.login {
        let response = sasl::encode(format!("\0{user}\0{password}").as_bytes());
        let reply = ask(&mut connection, &format!("AUTH PLAIN {response}")).await?;
        if reply.code != 235 {
            // The operator's mistake, not the sender's: the mail waits.
            return Err(Stopped::Trouble(format!(
                "it refuses the login: {}",
                reply.text()
            )));
        }
    }
    let mut mail = format!("MAIL FROM:<{sender}>");
    if hello.offers("SIZE") {
        mail.push_str(&format!(" SIZE={}", text.len()));
    }
    if hello.offers("8BITMIME") && !text.is_ascii() {
        mail.push_str(" BODY=8BITMIME");
    }
    if !sender.is_ascii() || recipients.iter().any(|recipient| !recipient.is_ascii()) {
        if !hello.offers("SMTPUTF8") {
            let why = "550 5.6.7 The relay does not take addresses that are not ASCII".to_string();
            return Ok(vec![Answer::Never(why); recipients.len()]);
        }
        mail.push_str(" SMTPUTF8");
    }
    expect(ask(&mut connection, &mail).await?)?;
    let mut answers = Vec::new();
    for recipient in recipients {
        answers.push(
            ask(&mut connection, &format!("RCPT TO:<{recipient}>"))
                .await?
                .answer(),
        );
    }
    if answers.contains(&Answer::Taken) {
        let reply = ask(&mut connection, "DATA").await?;
        let answer = if reply.code == 354 {
            connection.send(&stuffed(text)).await?;
            read_reply(&mut connection).await?.answer()
        } else {
            reply.answer()
        };
        answers
            .iter_mut()
            .filter(|known| **known == Answer::Taken)
            .for_each(|known| *known = answer.clone());
    }
    // What was taken is taken, whatever becomes of the farewell.
    let _ = ask(&mut connection, "QUIT").await;
    connection.close().await;
    Ok(answers)
}

fn expect(reply: Reply) -> Result<Reply, Stopped> {
    if (200..400).contains(&reply.code) {
        Ok(reply)
    } else {
        Err(Stopped::Refused(reply))
    }
}

async fn ask(connection: &mut Connection, line: &str) -> Result<Reply, Stopped> {
    connection.send(format!("{line}\r\n").as_bytes()).await?;
    read_reply(connection).await
}

async fn read_reply(connection: &mut Connection) -> Result<Reply, Stopped> {
    let mut lines = Vec::new();
    loop {
        let Some(line) = connection.read_line(MAX_LINE).await? else {
            return Err(Stopped::Trouble("it has closed the connection".into()));
        };
        let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        let code = line.get(..3).and_then(|code| code.parse().ok());
        let Some(code) = code.filter(|_| lines.len() < MAX_REPLY_LINES) else {
            return Err(Stopped::Trouble(format!(
                "its reply is none of SMTP: {line:?}"
            )));
        };
        lines.push(line.get(4..).unwrap_or_default().to_string());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(Reply { code, lines });
        }
    }
}

/// The text with CRLF line ends, dots before dots, and the dot that ends it.
pub fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(body.strip_suffix(b"\r").unwrap_or(body));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_line_of_a_message_ends_it() {
        assert_eq!(
            super::stuffed(b"a\n.\nb\r\n..c"),
            b"a\r\n..\r\nb\r\n...c\r\n.\r\n"
        );
        assert_eq!(super::stuffed(b""), b".\r\n");
    }
}
