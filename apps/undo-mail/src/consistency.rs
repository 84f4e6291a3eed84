//! The external consistency of mail, and what is done where it fails (paper, section 4.1.2).
//!
//! Retrieval is inconsistent if a message or folder that was visible is missing or altered, or if
//! a command that changed state fails. Order does not count, nor does what was not there before.
//! Transport is relaxed: mail may come late and in any order, and what differs in it shows at
//! retrieval.

use std::fmt;

use undo::{Call, Compensation, Outcome, Result, Squash, Status};

use crate::names::{self, Folder};
use crate::notices;
use crate::store::{MailStore, Shown};
use crate::verbs::{Act, Verb};

/// How a replayed verb differs from what its user knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inconsistency {
    pub user: String,
    pub verb: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Messages that the user has seen are not there, or have another text now.
    Messages {
        missing: Vec<u64>,
        altered: Vec<u64>,
        folder: String,
    },
    /// Folders that the user has seen are not there: how many.
    Folders { missing: usize },
    /// A command that had succeeded fails.
    Failed { why: String },
}

impl fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Messages {
                missing,
                altered,
                folder,
            } => {
                let mut parts = Vec::new();
                if !missing.is_empty() {
                    parts.push(format!(
                        "{} seen before are not there any more",
                        plural(missing.len())
                    ));
                }
                if !altered.is_empty() {
                    parts.push(format!(
                        "{} seen before have another text now",
                        plural(altered.len())
                    ));
                }
                write!(f, "in {folder}, {}", parts.join(", and "))
            }
            What::Folders { missing: 1 } => {
                f.write_str("a folder seen before is not there any more")
            }
            What::Folders { missing } => {
                write!(f, "{missing} folders seen before are not there any more")
            }
            What::Failed { why } => write!(f, "{} had succeeded and fails now: {why}", self.verb),
        }
    }
}

fn plural(n: usize) -> String {
    if n == 1 {
        "1 message".into()
    } else {
        format!("{n} messages")
    }
}

/// Whether a user can tell the two executions apart in a way that counts.
pub fn compare(
    verb: &Verb,
    original: &Outcome<Shown>,
    replayed: &Outcome<Shown>,
) -> std::result::Result<(), Inconsistency> {
    let about = undo::Verb::about(verb);
    let inconsistency = |what| {
        Err(Inconsistency {
            user: about.user.clone(),
            verb: about.line.clone(),
            what,
        })
    };
    if matches!(verb.act, Act::Deliver { .. }) {
        // What differs here is seen when somebody fetches it. But mail that was delivered and
        // that the store refuses now must not be lost.
        return match (&original.status, &replayed.status) {
            (Status::Done, Status::Failed(why)) => inconsistency(What::Failed { why: why.clone() }),
            _ => Ok(()),
        };
    }
    if let (Status::Done, Status::Failed(why)) = (&original.status, &replayed.status) {
        return inconsistency(What::Failed { why: why.clone() });
    }
    match (&original.tag, &replayed.tag, messages_of(verb)) {
        (Shown::Messages(before), Shown::Messages(after), Some(messages)) => {
            let (mut missing, mut altered) = (Vec::new(), Vec::new());
            for ((message, before), after) in messages.iter().zip(before).zip(after) {
                match (before, after) {
                    (0, _) => {}
                    (_, 0) => missing.push(message.id),
                    (a, b) if a != b => altered.push(message.id),
                    _ => {}
                }
            }
            if missing.is_empty() && altered.is_empty() {
                return Ok(());
            }
            let folder = verb.folder().map_or_else(String::new, |f| f.name.clone());
            inconsistency(What::Messages {
                missing,
                altered,
                folder,
            })
        }
        (Shown::Folders(before), Shown::Folders(after), _) => {
            match before
                .iter()
                .filter(|folder| !after.contains(folder))
                .count()
            {
                0 => Ok(()),
                missing => inconsistency(What::Folders { missing }),
            }
        }
        _ => Ok(()),
    }
}

/// The messages that a verb's record is about, in its order.
fn messages_of(verb: &Verb) -> Option<&[names::Message]> {
    match &verb.act {
        Act::Fetch { messages, .. }
        | Act::Store { messages, .. }
        | Act::Copy { messages, .. }
        | Act::Move { messages, .. } => Some(messages),
        // What was to go and has gone already is as it should be.
        _ => None,
    }
}

/// Makes up for an inconsistency where that is possible, and explains the rest.
pub fn compensate(
    store: &MailStore,
    call: &Call<'_, Verb>,
    what: &Inconsistency,
) -> Result<Compensation<Shown>> {
    match (&call.verb.act, &what.what) {
        (
            Act::Append {
                folder,
                id,
                flags,
                date,
                body,
            },
            What::Failed { .. },
        ) => {
            if let Ok(surrogate) = surrogate(store, &call.verb.user, folder)
                && let Ok((shown, _)) =
                    store.append(&call.verb.user, &surrogate, *id, flags, date, body)
            {
                let words = format!("the message was put into {surrogate}");
                explain(store, call, what, Some(&words));
                return Ok(Compensation {
                    words,
                    outcome: Some(Outcome::done(shown)),
                });
            }
        }
        (
            Act::Copy {
                folder,
                messages,
                to,
            }
            | Act::Move {
                folder,
                messages,
                to,
            },
            What::Failed { .. },
        ) => {
            let user = &call.verb.user;
            let lost = store.factory.name(user, to).is_ok_and(|name| {
                name.is_none_or(|n| store.pool.within(user, &n, true, |_, _| Ok(())).is_err())
            });
            if lost && surrogate(store, user, to).is_ok() {
                let (folder, messages, to) = (folder.clone(), messages.clone(), to.clone());
                let act = match &call.verb.act {
                    Act::Move { .. } => Act::Move {
                        folder,
                        messages,
                        to,
                    },
                    _ => Act::Copy {
                        folder,
                        messages,
                        to,
                    },
                };
                let verb = Verb::new(user, act);
                let again = Call {
                    verb: &verb,
                    ..*call
                };
                let (outcome, _) = undo::Service::execute(store, &again);
                if outcome.is_done() {
                    let words = "the messages were put into a folder below Lost&Found".to_owned();
                    explain(store, call, what, Some(&words));
                    return Ok(Compensation {
                        words,
                        outcome: Some(outcome),
                    });
                }
            }
        }
        (Act::Deliver { from, .. }, _) => {
            // The arrival counts as failed again: it is tried again, and bounces if its window
            // has closed. Nobody is told before.
            let words = format!("it will be tried again; <{from}> is told if that fails");
            return Ok(Compensation {
                words,
                outcome: None,
            });
        }
        _ => {}
    }
    let told = explain(store, call, what, None);
    let words = if told {
        "the user was told"
    } else {
        "the user has been told already"
    };
    Ok(Compensation {
        words: words.into(),
        outcome: None,
    })
}

/// Makes a folder below `Lost&Found` that stands for one that has gone: it has the same UndoID, so
/// what the timeline still does to that one goes here.
fn surrogate(
    store: &MailStore,
    user: &str,
    folder: &Folder,
) -> std::result::Result<String, String> {
    let text = |e: crate::imap::pool::Trouble| e.to_string();
    let delimiter = store.delimiter(user).map_err(text)?;
    let flat = folder.name.replace(&delimiter, "_");
    // `&` is written `&-` in names of folders (RFC 3501, 5.1.3).
    let name = format!("Lost&-Found{delimiter}{flat}");
    let create = |name: &str| {
        store.pool.with(user, |session| {
            let mut command = b"CREATE ".to_vec();
            command.extend(crate::imap::token::quote(name.as_bytes()));
            session.ask(&command)?;
            Ok(())
        })
    };
    create("Lost&-Found").map_err(text)?;
    create(&name).map_err(text)?;
    store
        .factory
        .set(user, folder, &name, &delimiter)
        .map_err(|e| e.to_string())?;
    Ok(name)
}

/// Puts an explanation into the user's INBOX, unless the same was explained in this cycle. False:
/// it was.
fn explain(
    store: &MailStore,
    call: &Call<'_, Verb>,
    what: &Inconsistency,
    done: Option<&str>,
) -> bool {
    let mut key = what.what.clone();
    if let What::Messages {
        missing, altered, ..
    } = &mut key
    {
        // Each message is explained once, however often it was looked at.
        let mut told = store.told.lock().unwrap_or_else(|p| p.into_inner());
        missing.retain(|id| {
            told.insert((
                what.user.clone(),
                names::hash(&[b"missing", &id.to_le_bytes()]),
            ))
        });
        altered.retain(|id| {
            told.insert((
                what.user.clone(),
                names::hash(&[b"altered", &id.to_le_bytes()]),
            ))
        });
        if missing.is_empty() && altered.is_empty() {
            return false;
        }
    } else {
        let mut told = store.told.lock().unwrap_or_else(|p| p.into_inner());
        if !told.insert((
            what.user.clone(),
            names::hash(&[format!("{key:?}").as_bytes()]),
        )) {
            return false;
        }
    }
    tell(store, call, &what.user, &what.to_string(), done)
}

fn tell(
    store: &MailStore,
    call: &Call<'_, Verb>,
    user: &str,
    what: &str,
    done: Option<&str>,
) -> bool {
    if user.is_empty() {
        return false;
    }
    // The same replay, begun again, makes the same message.
    let id = names::hash(&[
        b"explanation",
        user.as_bytes(),
        &call.lsn.to_le_bytes(),
        what.as_bytes(),
    ]);
    let body = notices::explanation(&store.settings, user, call, what, done);
    store.append(user, "INBOX", id, "", "", &body).is_ok()
}

/// Verbs that destroy or overwrite do not rest on what is not true any more (paper, 3.2.1).
pub fn squash(store: &MailStore, call: &Call<'_, Verb>, because: &[Inconsistency]) -> Squash<Verb> {
    let user = &call.verb.user;
    let reasons = |affected: &dyn Fn(&Inconsistency) -> bool| {
        because
            .iter()
            .find(|i| affected(i))
            .map(Inconsistency::to_string)
    };
    // A message is affected if it is altered; one that is missing cannot be destroyed.
    let touches = |ids: &[names::Message]| {
        let ids: Vec<u64> = ids.iter().map(|m| m.id).collect();
        reasons(&|i| match &i.what {
            What::Messages { altered, .. } => altered.iter().any(|id| ids.contains(id)),
            What::Folders { .. } | What::Failed { .. } => false,
        })
    };
    match &call.verb.act {
        Act::Expunge { folder, messages } | Act::Close { folder, messages } => {
            let Some(reason) = touches(messages) else {
                return Squash::Unchanged;
            };
            let kept = messages.iter().filter(|m| {
                !because.iter().any(|i| match &i.what {
                    What::Messages { altered, .. } => altered.contains(&m.id),
                    _ => false,
                })
            });
            let rest: Vec<names::Message> = kept.copied().collect();
            let words = "what was deleted because of it has been kept; please delete it again if you still want to";
            tell(store, call, user, &reason, Some(words));
            match rest.is_empty() {
                true => Squash::Cancelled(words.into()),
                false => {
                    let act = Act::Expunge {
                        folder: folder.clone(),
                        messages: rest,
                    };
                    Squash::Changed(Verb::new(user, act), words.into())
                }
            }
        }
        Act::Store {
            messages, flags, ..
        } if flags.to_lowercase().contains("\\deleted") => match touches(messages) {
            Some(_) => Squash::Cancelled("a mark of deletion was not set".into()),
            None => Squash::Unchanged,
        },
        Act::Move {
            folder,
            messages,
            to,
        } => match touches(messages) {
            Some(reason) => {
                let words = "the messages were copied, not moved";
                tell(store, call, user, &reason, Some(words));
                let act = Act::Copy {
                    folder: folder.clone(),
                    messages: messages.clone(),
                    to: to.clone(),
                };
                Squash::Changed(Verb::new(user, act), words.into())
            }
            None => Squash::Unchanged,
        },
        Act::Delete { folder } => {
            let affected = reasons(&|i| match &i.what {
                What::Messages { folder: name, .. } => *name == folder.name,
                What::Folders { .. } | What::Failed { .. } => true,
            });
            match affected {
                Some(reason) => {
                    let words = format!("the folder {} was not deleted", folder.name);
                    tell(store, call, user, &reason, Some(&words));
                    Squash::Cancelled(words)
                }
                None => Squash::Unchanged,
            }
        }
        _ => Squash::Unchanged,
    }
}
