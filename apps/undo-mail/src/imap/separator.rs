//! What stands between the name of a folder and that of one below it.
//!
//! All names in the timeline have it, so a server that replaces another one must have the same:
//! else a replay would make other folders of the same names. The first server's is written to
//! `HOME/separator`; the first session after each start of a server is asked for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::session::{Kind, Session};

pub struct Separator {
    file: PathBuf,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    known: Option<String>,
    state: State,
}

#[derive(Default)]
enum State {
    /// This server has not been asked yet.
    #[default]
    Unasked,
    Right,
    Wrong(String),
}

impl Separator {
    /// `home` is the folder of the undo manager.
    pub fn open(home: &Path) -> Separator {
        Separator {
            file: home.join("separator"),
            found: Mutex::default(),
        }
    }

    /// As far as any server was asked in this life.
    pub fn known(&self) -> Option<String> {
        self.lock().known.clone()
    }

    /// The server may be another one from here on.
    pub fn check_again(&self) {
        self.lock().state = State::Unasked;
    }

    pub fn is_not_wrong(&self) -> io::Result<()> {
        match &self.lock().state {
            State::Wrong(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why.clone())),
            _ => Ok(()),
        }
    }

    /// Asks the server in one of its sessions, unless it was asked before.
    pub fn check(&self, session: &mut Session) -> io::Result<()> {
        if matches!(self.lock().state, State::Unasked) {
            let has = ask(session)?;
            let mut found = self.lock();
            let Some(has) = has else {
                // It has no levels at all.
                found.state = State::Right;
                return Ok(());
            };
            let known = match std::fs::read_to_string(&self.file) {
                Ok(known) => known,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    std::fs::write(&self.file, &has)?;
                    has.clone()
                }
                Err(e) => return Err(e),
            };
            found.state = match known == has {
                true => State::Right,
                false => State::Wrong(format!(
                    "the mail server separates folders by {has:?}, and the one before by {known:?}; \
                     give it that one (Dovecot: separator in its namespace)"
                )),
            };
            found.known = Some(known);
        }
        self.is_not_wrong()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(|p| p.into_inner())
    }
}

fn ask(session: &mut Session) -> io::Result<Option<String>> {
    let answer = session.ask(b"LIST \"\" \"\"")?;
    if answer.kind != Kind::Ok {
        return Err(io::Error::other(answer.text));
    }
    let mut found = answer.untagged.iter().filter_map(|r| r.get(2)?.text());
    Ok(found.next().filter(|separator| separator != "NIL"))
}
