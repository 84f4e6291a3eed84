//! One session of SMTP, submission or LMTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Role;
use super::accept::{self, Fate};
use super::command::{self, Command, Mail};
use super::data::Text;
use crate::directory::{NoRoute, Route};
use crate::maildir::account::Account;
use crate::maildir::name;
use crate::message::trace::{self, Arrival};
use crate::net::connection::{Connection, Trouble};
use crate::sasl;
use crate::server::{Server, on_disk};

/// RFC 5321 allows 512 octets; addresses in UTF-8 and AUTH take more.
const MAX_LINE: usize = 12 << 10;
const PATIENCE: Duration = Duration::from_secs(300);
const MAX_BAD: u32 = 20;
const MAX_FAILED_LOGINS: u32 = 3;

struct Session {
    server: Arc<Server>,
    connection: Connection,
    role: Role,
    helo: Option<String>,
    /// EHLO or LHLO was said, not HELO.
    extended: bool,
    account: Option<Arc<Account>>,
    mail: Option<Mail>,
    recipients: Vec<(String, Route)>,
    /// Replies that wait until the client has said all that it had to say.
    replies: String,
    bad: u32,
    failed_logins: u32,
}

/// Whether the conversation goes on.
enum Next {
    GoOn,
    Quit,
}

pub async fn serve(server: Arc<Server>, connection: Connection, role: Role) {
    let protocol = if role == Role::Lmtp { "LMTP" } else { "ESMTP" };
    let greeting = format!("220 {} {protocol} mailstore\r\n", server.settings.hostname);
    let mut session = Session {
        server,
        connection,
        role,
        helo: None,
        extended: false,
        account: None,
        mail: None,
        recipients: Vec::new(),
        replies: greeting,
        bad: 0,
        failed_logins: 0,
    };
    session.connection.patience = PATIENCE;
    let farewell = match session.talk().await {
        Ok(()) | Err(Trouble::Io(_)) => "",
        Err(Trouble::TimedOut) => "421 4.4.2 Nothing was said for too long\r\n",
        Err(Trouble::Stopping) => "421 4.3.2 The server stops; come back soon\r\n",
        Err(Trouble::LineTooLong) => "500 5.5.2 The line is too long\r\n",
    };
    session.replies.push_str(farewell);
    let _ = session.flush().await;
    session.connection.close().await;
}

impl Session {
    async fn talk(&mut self) -> Result<(), Trouble> {
        loop {
            // Replies go out together when no further command has come (RFC 2920).
            if memchr::memchr(b'\n', self.connection.unread()).is_none() {
                self.flush().await?;
            }
            let Some(line) = self.connection.read_line(MAX_LINE).await? else {
                return Ok(());
            };
            let next = match command::parse(&line) {
                Ok(command) => self.carry_out(command).await?,
                Err(bad) => {
                    self.bad += 1;
                    self.reply(bad);
                    Next::GoOn
                }
            };
            if self.bad >= MAX_BAD || self.failed_logins >= MAX_FAILED_LOGINS {
                self.reply("421 4.7.0 Too many mistakes");
                return self.flush().await;
            }
            if matches!(next, Next::Quit) {
                return self.flush().await;
            }
        }
    }

    fn reply(&mut self, line: &str) {
        self.replies.push_str(line);
        self.replies.push_str("\r\n");
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let replies = std::mem::take(&mut self.replies);
        self.connection.send(replies.as_bytes()).await
    }

    async fn carry_out(&mut self, command: Command) -> Result<Next, Trouble> {
        match command {
            Command::Ehlo(host) if self.role != Role::Lmtp => self.hello(host, true),
            Command::Helo(host) if self.role != Role::Lmtp => self.hello(host, false),
            Command::Lhlo(host) if self.role == Role::Lmtp => self.hello(host, true),
            Command::Ehlo(_) | Command::Helo(_) => self.reply("500 5.5.1 Say LHLO here"),
            Command::Lhlo(_) => self.reply("500 5.5.1 Say EHLO here"),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => return self.data().await,
            Command::Rset => {
                self.reset();
                self.reply("250 2.0.0 Forgotten");
            }
            Command::Noop => self.reply("250 2.0.0 Nothing done"),
            Command::Vrfy => self.reply("252 2.1.5 Send it, and you will see"),
            Command::Help => self.reply("214 2.0.0 See RFC 5321"),
            Command::Quit => {
                self.reply("221 2.0.0 Goodbye");
                return Ok(Next::Quit);
            }
            Command::StartTls => return self.start_tls().await,
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial).await?,
        }
        Ok(Next::GoOn)
    }

    fn reset(&mut self) {
        self.mail = None;
        self.recipients.clear();
    }

    fn hello(&mut self, host: String, extended: bool) {
        self.reset();
        self.helo = Some(host);
        self.extended = extended;
        let server = self.server.clone();
        let name = &server.settings.hostname;
        if !extended {
            return self.reply(&format!("250 {name}"));
        }
        let mut lines = vec![
            name.clone(),
            "PIPELINING".into(),
            format!("SIZE {}", server.settings.max_message),
            "8BITMIME".into(),
            "SMTPUTF8".into(),
            "ENHANCEDSTATUSCODES".into(),
        ];
        if server.tls.is_some() && !self.connection.is_tls && self.role != Role::Lmtp {
            lines.push("STARTTLS".into());
        }
        if self.role == Role::Submission
            && sasl::may_say_password(&server.settings, &self.connection)
        {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        let last = lines.len() - 1;
        for (at, line) in lines.iter().enumerate() {
            self.reply(&format!("250{}{line}", if at == last { ' ' } else { '-' }));
        }
    }

    fn mail(&mut self, mail: Mail) {
        let reply = if self.helo.is_none() {
            "503 5.5.1 Say hello first"
        } else if self.role == Role::Submission && self.account.is_none() {
            "530 5.7.0 Log in first"
        } else if self.mail.is_some() {
            "503 5.5.1 A message is under way; RSET forgets it"
        } else if mail
            .size
            .is_some_and(|size| size > self.server.settings.max_message as u64)
        {
            "552 5.3.4 The message is longer than this server takes"
        } else {
            self.mail = Some(mail);
            "250 2.1.0 OK"
        };
        self.reply(reply);
    }

    fn rcpt(&mut self, recipient: String) {
        let Some(mail) = &self.mail else {
            return self.reply("503 5.5.1 Say MAIL first");
        };
        if !mail.utf8 && !recipient.is_ascii() {
            return self.reply("553 5.6.7 The address needs SMTPUTF8");
        }
        if self.recipients.len() >= self.server.settings.limits.recipients {
            return self
                .reply("452 4.5.3 Too many recipients; send the message again to the others");
        }
        let size = mail.size.unwrap_or(0);
        let route = match self.server.directory.route(&recipient) {
            Ok(route) => route,
            Err(NoRoute::NoSuchUser) => return self.reply("550 5.1.1 There is no such user here"),
            Err(NoRoute::NotOurs) => {
                if self.role != Role::Submission {
                    return self.reply("550 5.7.1 The address is not of this server");
                }
                if self.server.settings.relay.is_none() {
                    return self.reply(
                        "550 5.7.1 This server has no way to that domain ([relay] is not set)",
                    );
                }
                Route {
                    local: Vec::new(),
                    remote: vec![recipient.clone()],
                }
            }
        };
        if let ([account], true) = (route.local.as_slice(), route.remote.is_empty())
            && account.has_quota()
        {
            match on_disk(|| account.has_room_for(size)) {
                Ok(true) => {}
                Ok(false) => return self.reply("452 4.2.2 The account's quota is used up"),
                Err(failure) => {
                    crate::log!("delivery: {failure}");
                    return self.reply("451 4.3.0 The account cannot be read now");
                }
            }
        }
        self.recipients.push((recipient, route));
        self.reply("250 2.1.5 OK");
    }

    async fn data(&mut self) -> Result<Next, Trouble> {
        if self.mail.is_none() {
            self.reply("503 5.5.1 Say MAIL first");
            return Ok(Next::GoOn);
        }
        if self.recipients.is_empty() {
            self.reply("554 5.5.1 There are no recipients");
            return Ok(Next::GoOn);
        }
        self.reply("354 Send the message, then a line that is a dot");
        self.flush().await?;
        let mut text = Text::new(self.server.settings.max_message);
        loop {
            if self.connection.unread().is_empty() && self.connection.fill().await? == 0 {
                return Ok(Next::Quit); // it left in the middle: nothing is taken
            }
            let (used, done) = text.take(self.connection.unread());
            self.connection.consume(used);
            if done {
                break;
            }
        }
        self.take(text);
        self.reset();
        Ok(Next::GoOn)
    }

    fn take(&mut self, text: Text) {
        let refusal = if text.is_too_long {
            Some("552 5.3.4 The message is longer than this server takes")
        } else if text.octets.contains(&0) {
            Some("554 5.6.0 The message has a zero octet in it")
        } else if trace::goes_in_a_circle(&text.octets) {
            Some("554 5.4.6 The message goes in a circle")
        } else {
            None
        };
        let count = if self.role == Role::Lmtp {
            self.recipients.len()
        } else {
            1
        };
        if let Some(refusal) = refusal {
            (0..count).for_each(|_| self.reply(refusal));
            return;
        }
        let id = name::fresh_base(0, 0)
            .split(".")
            .take(2)
            .collect::<Vec<_>>()
            .join(".");
        let time = SystemTime::now();
        let server = self.server.clone();
        let mut prefix = trace::received(&Arrival {
            helo: self.helo.as_deref().unwrap_or("unknown"),
            peer: &self.connection.peer,
            by: &server.settings.hostname,
            with: self.protocol(),
            id: &id,
            time,
        });
        if self.role == Role::Submission {
            prefix.push_str(&trace::missing_fields(
                &text.octets,
                &server.settings.hostname,
                &id,
                time,
            ));
        }
        let sender = self.mail.take().unwrap_or_default().sender;
        let mail = accept::Mail {
            sender: &sender,
            prefix: &prefix,
            text: &text.octets,
        };
        if self.role == Role::Lmtp {
            let fates = on_disk(|| accept::for_each(&server, &mail, &self.recipients));
            for fate in fates {
                self.reply(fate_reply(fate, &id).as_str());
            }
        } else {
            let fate = on_disk(|| accept::for_all(&server, &mail, &self.recipients));
            self.reply(fate_reply(fate, &id).as_str());
        }
    }

    /// The protocol's name in Received (RFC 3848).
    fn protocol(&self) -> &'static str {
        match (
            self.role,
            self.extended,
            self.connection.is_tls,
            self.account.is_some(),
        ) {
            (Role::Lmtp, ..) => "LMTP",
            (_, false, ..) => "SMTP",
            (_, true, false, false) => "ESMTP",
            (_, true, true, false) => "ESMTPS",
            (_, true, false, true) => "ESMTPA",
            (_, true, true, true) => "ESMTPSA",
        }
    }

    async fn start_tls(&mut self) -> Result<Next, Trouble> {
        let acceptor = self.server.tls.clone().filter(|_| self.role != Role::Lmtp);
        let (Some(acceptor), false) = (acceptor, self.connection.is_tls) else {
            self.reply("503 5.5.1 TLS cannot begin here");
            return Ok(Next::GoOn);
        };
        if !self.connection.unread().is_empty() {
            // What comes before TLS could be anybody's.
            self.reply("501 5.5.4 Wait for the answer to STARTTLS");
            return Ok(Next::Quit);
        }
        self.reply("220 2.0.0 Begin TLS");
        self.flush().await?;
        self.connection.accept_tls(&acceptor).await?;
        // All that was said before is forgotten (RFC 3207, section 4.2).
        self.reset();
        self.helo = None;
        Ok(Next::GoOn)
    }

    async fn auth(&mut self, mechanism: &str, initial: Option<String>) -> Result<(), Trouble> {
        let refusal = if self.role != Role::Submission {
            Some("503 5.5.1 Nobody logs in here")
        } else if self.account.is_some() {
            Some("503 5.5.1 You are logged in")
        } else if self.mail.is_some() {
            Some("503 5.5.1 A message is under way")
        } else if !sasl::may_say_password(&self.server.settings, &self.connection) {
            Some("538 5.7.11 Begin TLS first")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.reply(refusal);
            return Ok(());
        }
        let response = match mechanism {
            "PLAIN" => self.response("334 ", initial).await?,
            "LOGIN" => self.login_response(initial).await?,
            _ => {
                self.reply("504 5.5.4 Use PLAIN or LOGIN");
                return Ok(());
            }
        };
        let Some(response) = response else {
            self.reply("501 5.5.2 Authentication broken off, or no base64");
            return Ok(());
        };
        let Some(account) = sasl::plain(&self.server.directory, &response).await else {
            self.failed_logins += 1;
            crate::log!("submission {}: a login failed", self.connection.peer);
            tokio::time::sleep(Duration::from_millis(500) * self.failed_logins).await;
            self.reply("535 5.7.8 Name or password is wrong");
            return Ok(());
        };
        self.account = Some(account);
        self.reply("235 2.7.0 Logged in");
        Ok(())
    }

    /// One response of the client, decoded; `None` if there is none.
    async fn response(
        &mut self,
        prompt: &str,
        initial: Option<String>,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let text = match initial {
            Some(text) if text == "=" => return Ok(Some(Vec::new())),
            Some(text) => text.into_bytes(),
            None => {
                self.reply(prompt);
                self.flush().await?;
                match self.connection.read_line(sasl::MAX_RESPONSE).await? {
                    Some(line) => line,
                    None => return Ok(None),
                }
            }
        };
        Ok(sasl::decode(&text))
    }

    /// LOGIN asks for name and password one by one; the outcome is as of PLAIN.
    async fn login_response(
        &mut self,
        initial: Option<String>,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let name = self
            .response(&format!("334 {}", sasl::encode(b"Username:")), initial)
            .await?;
        let Some(name) = name else { return Ok(None) };
        let password = self
            .response(&format!("334 {}", sasl::encode(b"Password:")), None)
            .await?;
        let Some(password) = password else {
            return Ok(None);
        };
        Ok(Some(
            [&[0], name.as_slice(), &[0], password.as_slice()].concat(),
        ))
    }
}

fn fate_reply(fate: Fate, id: &str) -> String {
    match fate {
        Fate::Taken => format!("250 2.0.0 Taken as {id}"),
        Fate::NoRoom => "452 4.2.2 The account's quota is used up".into(),
        Fate::Failed => "451 4.3.0 The message could not be stored; try again later".into(),
    }
}
