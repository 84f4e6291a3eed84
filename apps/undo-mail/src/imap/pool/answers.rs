//! What comes of asking the real server.

use std::io;

use crate::imap::session::{Answer, Kind};
use crate::imap::token::Token;

/// Why something could not be done with the real server.
#[derive(Debug)]
pub enum Trouble {
    /// It answered NO or BAD, and said this.
    Refused(String),
    /// It did not answer.
    Gone(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Gone(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(text) => f.write_str(text),
            Trouble::Gone(error) => write!(f, "the mail server does not answer: {error}"),
        }
    }
}

pub type Tried<T> = Result<T, Trouble>;

/// What the server has answered, if it has done what it was asked for.
pub fn good(answer: Answer) -> Tried<Answer> {
    match answer.kind {
        Kind::Ok => Ok(answer),
        _ => Err(Trouble::Refused(answer.text)),
    }
}

/// The FETCH responses that have a UID: the UID, and names and values of the items.
pub fn fetched(untagged: &[Vec<Token>]) -> Vec<(u32, Vec<(String, Token)>)> {
    let mut found = Vec::new();
    for response in untagged {
        if response.get(1).and_then(Token::word).as_deref() != Some("FETCH") {
            continue;
        }
        let Some(list) = response.get(2).and_then(Token::list) else {
            continue;
        };
        let items: Vec<(String, Token)> = list
            .chunks_exact(2)
            .map(|pair| (pair[0].word().unwrap_or_default(), pair[1].clone()))
            .collect();
        if let Some(uid) = items
            .iter()
            .find(|(name, _)| name == "UID")
            .and_then(|(_, v)| v.number())
        {
            found.push((uid, items));
        }
    }
    found
}
