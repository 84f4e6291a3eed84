//! STARTTLS, AUTHENTICATE and LOGIN, and what the server says it can do.

use std::sync::Arc;
use std::time::Duration;

use super::session::{End, Session};
use crate::maildir::account::Account;
use crate::net::connection::Trouble;
use crate::sasl;
use crate::server::on_disk;

const MAX_FAILED_LOGINS: u32 = 3;

impl Session {
    pub(super) async fn start_tls(&mut self) -> Result<End, Trouble> {
        let acceptor = self.server.tls.clone();
        let (Some(acceptor), false) = (acceptor, self.connection.is_tls) else {
            return Ok(End::Tagged("BAD TLS cannot begin here".into()));
        };
        if !self.connection.unread().is_empty() {
            // What comes before TLS could be anybody's.
            return Ok(End::Last("BAD Wait for the answer to STARTTLS".into()));
        }
        self.connection
            .send(format!("{} OK Begin TLS\r\n", self.tag).as_bytes())
            .await?;
        self.connection.accept_tls(&acceptor).await?;
        Ok(End::Answered)
    }

    pub(super) async fn authenticate(
        &mut self,
        mechanism: &str,
        initial: Option<Vec<u8>>,
    ) -> Result<End, Trouble> {
        if let Some(end) = self.cannot_log_in() {
            return Ok(end);
        }
        if mechanism != "PLAIN" {
            return Ok(End::Tagged(
                "NO [CANNOT] Use AUTHENTICATE PLAIN or LOGIN".into(),
            ));
        }
        let response = match initial {
            Some(response) => response,
            None => {
                self.connection.send(b"+ \r\n").await?;
                match self.connection.read_line(sasl::MAX_RESPONSE).await? {
                    Some(line) => line,
                    None => {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        };
        if response.trim_ascii() == b"*" {
            return Ok(End::Tagged("BAD Authentication broken off".into()));
        }
        let Some(response) = sasl::decode(&response) else {
            return Ok(End::Tagged("BAD The response is no base64".into()));
        };
        let account = sasl::plain(&self.server.directory, &response).await;
        self.logged_in(account).await
    }

    pub(super) async fn login(&mut self, user: &str, password: &str) -> Result<End, Trouble> {
        if let Some(end) = self.cannot_log_in() {
            return Ok(end);
        }
        let account = self.server.directory.login(user, password).await;
        self.logged_in(account).await
    }

    fn cannot_log_in(&self) -> Option<End> {
        if self.account.is_some() {
            return Some(End::Tagged("BAD You are logged in".into()));
        }
        let may = sasl::may_say_password(&self.server.settings, &self.connection);
        (!may).then(|| End::Tagged("NO [PRIVACYREQUIRED] Begin TLS first".into()))
    }

    async fn logged_in(&mut self, account: Option<Arc<Account>>) -> Result<End, Trouble> {
        let Some(account) = account else {
            self.failed_logins += 1;
            crate::log!("imap {}: a login failed", self.connection.peer);
            // Guessing gets slower, without holding up anybody else.
            tokio::time::sleep(Duration::from_millis(500) * self.failed_logins).await;
            let line = "NO [AUTHENTICATIONFAILED] Name or password is wrong".to_string();
            let last = self.failed_logins >= MAX_FAILED_LOGINS;
            return Ok(if last {
                End::Last(line)
            } else {
                End::Tagged(line)
            });
        };
        if let Err(failure) = on_disk(|| account.prepare()) {
            crate::log!("imap {}: {failure}", account.name);
            return Ok(End::Tagged(
                "NO [UNAVAILABLE] The mail of the account cannot be read now".into(),
            ));
        }
        self.account = Some(account);
        Ok(End::Tagged(format!(
            "OK [CAPABILITY {}] Logged in",
            self.capabilities()
        )))
    }

    pub(super) fn capabilities(&self) -> String {
        let mut text = "IMAP4rev1 LITERAL+ SASL-IR ENABLE ID IDLE".to_string();
        if self.account.is_some() {
            text.push_str(
                " NAMESPACE CHILDREN UIDPLUS UNSELECT MOVE CONDSTORE ESEARCH SPECIAL-USE \
                 CREATE-SPECIAL-USE LIST-EXTENDED LIST-STATUS QUOTA",
            );
            return text;
        }
        if self.server.tls.is_some() && !self.connection.is_tls {
            text.push_str(" STARTTLS");
        }
        let may = sasl::may_say_password(&self.server.settings, &self.connection);
        text.push_str(if may { " AUTH=PLAIN" } else { " LOGINDISABLED" });
        text
    }
}
