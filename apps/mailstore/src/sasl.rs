//! AUTH PLAIN (RFC 4616) and the rule where a password may be said.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::directory::Directory;
use crate::maildir::account::Account;
use crate::net::connection::Connection;
use crate::settings::{PlainLogin, Settings};

/// Longer names and passwords are refused unread.
pub const MAX_RESPONSE: usize = 8 << 10;

pub fn may_say_password(settings: &Settings, connection: &Connection) -> bool {
    connection.is_tls
        || match settings.limits.plain_login {
            PlainLogin::Always => true,
            PlainLogin::Loopback => connection.is_loopback,
            PlainLogin::Never => false,
        }
}

pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim_ascii()).ok()
}

pub fn encode(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

/// The account that a response to PLAIN opens. The name to act as is the user's
/// own, or the master acts as a user.
pub async fn plain(directory: &Directory, response: &[u8]) -> Option<Arc<Account>> {
    let mut parts = response.split(|octet| *octet == 0).map(std::str::from_utf8);
    let (act_as, name, password) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    if parts.next().is_some() || name.is_empty() || password.is_empty() {
        return None;
    }
    if act_as.is_empty() || act_as == name {
        return directory.login(name, password).await;
    }
    directory.login_as(act_as, name, password).await
}
