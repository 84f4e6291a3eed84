//! The verbs of mail, and which of them commute (paper, sections 4.1 and 4.1.3).

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use undo::{About, Access, Timing};

use crate::bytes::Bytes;
use crate::names::{self, Folder, Message};
use crate::scope::Scope;

/// An interaction of a user with the mail store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verb {
    /// Who acts; empty for a delivery, whose real recipient the proxy cannot know (aliases).
    pub user: String,
    pub act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Mail from outside, for one recipient.
    Deliver {
        id: u64,
        from: String,
        to: String,
        body: Bytes,
        options: String,
        window_s: u64,
    },
    Append {
        folder: Folder,
        id: u64,
        flags: String,
        date: String,
        body: Bytes,
    },
    /// `items` is the client's list of what it wants, without the parentheses.
    Fetch {
        folder: Folder,
        messages: Vec<Message>,
        items: String,
    },
    /// `how` is `FLAGS`, `+FLAGS` or `-FLAGS`.
    Store {
        folder: Folder,
        messages: Vec<Message>,
        how: String,
        flags: String,
    },
    Copy {
        folder: Folder,
        messages: Vec<Message>,
        to: Folder,
    },
    Move {
        folder: Folder,
        messages: Vec<Message>,
        to: Folder,
    },
    Select {
        folder: Folder,
        read_only: bool,
    },
    Expunge {
        folder: Folder,
        messages: Vec<Message>,
    },
    Close {
        folder: Folder,
        messages: Vec<Message>,
    },
    List {
        reference: String,
        pattern: String,
        subscribed: bool,
    },
    Status {
        folder: Folder,
        items: String,
    },
    Create {
        folder: Folder,
    },
    Rename {
        folder: Folder,
        to: String,
    },
    Delete {
        folder: Folder,
    },
    Subscribe {
        folder: Folder,
        on: bool,
    },
    /// A message that the operator, or the undo system itself, puts into a user's INBOX.
    Explain {
        id: u64,
        body: Bytes,
    },
}

impl Verb {
    pub fn new(user: &str, act: Act) -> Verb {
        Verb {
            user: user.into(),
            act,
        }
    }

    pub fn kind(&self) -> &'static str {
        match &self.act {
            Act::Deliver { .. } => "deliver",
            Act::Append { .. } => "append",
            Act::Fetch { .. } => "fetch",
            Act::Store { .. } => "store",
            Act::Copy { .. } => "copy",
            Act::Move { .. } => "move",
            Act::Select { .. } => "select",
            Act::Expunge { .. } => "expunge",
            Act::Close { .. } => "close",
            Act::List { .. } => "list",
            Act::Status { .. } => "status",
            Act::Create { .. } => "create",
            Act::Rename { .. } => "rename",
            Act::Delete { .. } => "delete",
            Act::Subscribe { .. } => "subscribe",
            Act::Explain { .. } => "explain",
        }
    }

    fn is_transport(&self) -> bool {
        matches!(self.act, Act::Deliver { .. })
    }

    /// The folder that the verb is about.
    pub fn folder(&self) -> Option<&Folder> {
        match &self.act {
            Act::Append { folder, .. }
            | Act::Fetch { folder, .. }
            | Act::Store { folder, .. }
            | Act::Copy { folder, .. }
            | Act::Move { folder, .. }
            | Act::Select { folder, .. }
            | Act::Expunge { folder, .. }
            | Act::Close { folder, .. }
            | Act::Status { folder, .. }
            | Act::Create { folder }
            | Act::Rename { folder, .. }
            | Act::Delete { folder }
            | Act::Subscribe { folder, .. } => Some(folder),
            Act::Deliver { .. } | Act::List { .. } | Act::Explain { .. } => None,
        }
    }

    /// The paper lets a delivery commute with all but fetches of an inbox. But a client may well
    /// store to, copy or remove a message that it has only counted; in a parallel replay that must
    /// not come before the message.
    fn brings_what_is_named_by(&self, other: &Verb) -> bool {
        let Act::Deliver { id, .. } = self.act else {
            return false;
        };
        match &other.act {
            Act::Fetch { messages, .. }
            | Act::Store { messages, .. }
            | Act::Copy { messages, .. }
            | Act::Move { messages, .. }
            | Act::Expunge { messages, .. }
            | Act::Close { messages, .. } => messages.iter().any(|m| m.id == id),
            _ => false,
        }
    }

    /// Fetching text without PEEK sets `\Seen`.
    fn sets_seen(&self) -> bool {
        matches!(&self.act, Act::Fetch { items, .. } if marks_seen(items))
    }

    /// What the verb does to folders, for the tests of order: a list, because a move does two
    /// things.
    fn touches(&self) -> Vec<Touch<'_>> {
        use Effect::*;
        let one = |folder: &Folder, effect| {
            vec![Touch {
                folder: folder.id,
                effect,
            }]
        };
        match &self.act {
            Act::Deliver { .. } => vec![],
            Act::Explain { id, .. } => vec![Touch {
                folder: names::inbox(),
                effect: Add(*id),
            }],
            Act::Append { folder, id, .. } => one(folder, Add(*id)),
            // A copy takes the flags along, so it matters whether it comes before.
            Act::Fetch {
                folder, messages, ..
            } if self.sets_seen() => one(folder, Mark(messages)),
            Act::Fetch {
                folder, messages, ..
            } => one(folder, Show(messages)),
            Act::Store {
                folder, messages, ..
            } => one(folder, Mark(messages)),
            Act::Copy {
                folder,
                messages,
                to,
            } => vec![
                Touch {
                    folder: folder.id,
                    effect: Show(messages),
                },
                Touch {
                    folder: to.id,
                    effect: AddAll(messages),
                },
            ],
            Act::Move {
                folder,
                messages,
                to,
            } => vec![
                Touch {
                    folder: folder.id,
                    effect: Take(messages),
                },
                Touch {
                    folder: to.id,
                    effect: AddAll(messages),
                },
            ],
            Act::Select { folder, .. } => one(folder, Open),
            Act::Expunge { folder, messages } | Act::Close { folder, messages } => {
                one(folder, Take(messages))
            }
            Act::Status { folder, .. } => one(folder, Count),
            Act::List { .. } => vec![Touch {
                folder: 0,
                effect: Tree { shows: true },
            }],
            Act::Create { folder }
            | Act::Rename { folder, .. }
            | Act::Delete { folder }
            | Act::Subscribe { folder, .. } => one(folder, Tree { shows: false }),
        }
    }
}

/// What a verb does to a folder.
#[derive(Clone, Copy)]
enum Effect<'a> {
    /// A message comes into it, with this UndoID.
    Add(u64),
    AddAll(&'a [Message]),
    /// Messages are read.
    Show(&'a [Message]),
    /// Flags are changed.
    Mark(&'a [Message]),
    /// Messages go from it.
    Take(&'a [Message]),
    Open,
    /// Its messages are counted.
    Count,
    /// The tree of folders is shown or changed.
    Tree {
        shows: bool,
    },
}

struct Touch<'a> {
    folder: u64,
    effect: Effect<'a>,
}

fn touches_commute(a: &Touch<'_>, b: &Touch<'_>) -> bool {
    use Effect::*;
    match (a.effect, b.effect) {
        (Tree { shows: true }, Tree { shows: true }) => true,
        // A list of folders does not depend on what is in them.
        (Tree { shows: true }, other) | (other, Tree { shows: true }) => {
            !matches!(other, Tree { .. })
        }
        // A rename moves folders below it too, so names of others may be at stake.
        (Tree { .. }, _) | (_, Tree { .. }) => false,
        _ if a.folder != b.folder => true,
        (Open, _) | (_, Open) => true,
        (Show(_) | Count, Show(_) | Count) => true,
        // Two copies of one message are told apart by the order in which they came.
        (AddAll(x), AddAll(y)) => !share(x, y),
        (Add(id), AddAll(m)) | (AddAll(m), Add(id)) => m.iter().all(|m| m.id != id),
        (Add(_), Add(_)) => true,
        (Count, _) | (_, Count) => false,
        (Add(id), Show(m) | Mark(m)) | (Show(m) | Mark(m), Add(id)) => m.iter().all(|m| m.id != id),
        // It names its messages; one that comes in meanwhile is none of them. But one that has come
        // before may be, and was perhaps only counted.
        (Take(m), Add(id)) | (Add(id), Take(m)) => m.iter().all(|m| m.id != id),
        (AddAll(x), Show(y) | Mark(y)) | (Show(y) | Mark(y), AddAll(x)) => !share(x, y),
        (Show(x), Mark(y)) | (Mark(x), Show(y) | Mark(y)) => !share(x, y),
        (Take(_), _) | (_, Take(_)) => false,
    }
}

fn share(a: &[Message], b: &[Message]) -> bool {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    small
        .iter()
        .any(|m| large.iter().any(|other| other.id == m.id))
}

impl undo::Verb for Verb {
    fn commutes(&self, other: &Self) -> bool {
        match (self.is_transport(), other.is_transport()) {
            (true, true) => true,
            (true, false) => !(shows_inbox(other) || self.brings_what_is_named_by(other)),
            (false, true) => !(shows_inbox(self) || other.brings_what_is_named_by(self)),
            (false, false) if self.user != other.user => true,
            (false, false) => {
                let others = other.touches();
                self.touches()
                    .iter()
                    .all(|a| others.iter().all(|b| touches_commute(a, b)))
            }
        }
    }

    fn independent(&self, other: &Self) -> bool {
        self.commutes(other)
    }

    fn prefers(&self, other: &Self) -> Ordering {
        // Mail goes before whoever looks for it.
        other.is_transport().cmp(&self.is_transport())
    }

    fn timing(&self) -> Timing {
        match self.act {
            Act::Deliver { window_s, .. } => Timing::Asynchronous {
                window: Duration::from_secs(window_s),
            },
            _ => Timing::Synchronous,
        }
    }

    fn access(&self) -> Access<Self> {
        match &self.act {
            Act::Fetch {
                folder,
                messages,
                items,
            } if self.sets_seen() => {
                let (folder, messages) = (folder.clone(), messages.clone());
                let items = peeking(items);
                Access::ReadsAs(Verb::new(
                    &self.user,
                    Act::Fetch {
                        folder,
                        messages,
                        items,
                    },
                ))
            }
            Act::Fetch { .. } | Act::List { .. } | Act::Status { .. } => Access::Reads,
            Act::Select {
                read_only: true, ..
            } => Access::Reads,
            Act::Select { folder, .. } => {
                let folder = folder.clone();
                Access::ReadsAs(Verb::new(
                    &self.user,
                    Act::Select {
                        folder,
                        read_only: true,
                    },
                ))
            }
            _ => Access::Writes,
        }
    }

    fn is_durable(&self) -> bool {
        // That a message was looked at may be forgotten in a power cut, as real servers do.
        !matches!(
            self.act,
            Act::Fetch { .. } | Act::List { .. } | Act::Status { .. } | Act::Select { .. }
        )
    }

    fn about(&self) -> About {
        let (mut sender, mut subject) = (String::new(), String::new());
        let (mut user, mut folder) = (self.user.clone(), String::new());
        let mut line = self.kind().to_owned();
        if let Some(known) = self.folder() {
            folder = known.name.clone();
            line += &format!(" {}", known.name);
        }
        match &self.act {
            Act::Deliver {
                id, from, to, body, ..
            } => {
                user = to.clone();
                sender = from.clone();
                subject = names::field(body, "Subject").unwrap_or_default();
                line += &format!(" {id:016x} from <{from}> to <{to}> {subject:?}");
            }
            Act::Append { id, body, .. } => {
                sender = names::field(body, "From").unwrap_or_default();
                subject = names::field(body, "Subject").unwrap_or_default();
                line += &format!(" {id:016x} {subject:?}");
            }
            Act::Explain { id, body } => {
                folder = "INBOX".into();
                subject = names::field(body, "Subject").unwrap_or_default();
                line += &format!(" {id:016x} {subject:?}");
            }
            Act::Fetch {
                messages, items, ..
            } => {
                line += &format!(" {} ({items})", show(messages));
            }
            Act::Store {
                messages,
                how,
                flags,
                ..
            } => {
                line += &format!(" {} {how} ({flags})", show(messages));
            }
            Act::Copy { messages, to, .. } | Act::Move { messages, to, .. } => {
                line += &format!(" {} to {}", show(messages), to.name);
            }
            Act::Expunge { messages, .. } | Act::Close { messages, .. } => {
                line += &format!(" {}", show(messages));
            }
            Act::List {
                reference, pattern, ..
            } => line += &format!(" {reference:?} {pattern:?}"),
            Act::Status { items, .. } => line += &format!(" ({items})"),
            Act::Rename { to, .. } => line += &format!(" to {to}"),
            Act::Subscribe { on, .. } => line += if *on { "" } else { " (off)" },
            Act::Select { .. } | Act::Create { .. } | Act::Delete { .. } => {}
        }
        About {
            kind: self.kind().into(),
            user,
            folder,
            sender,
            subject,
            line,
        }
    }

    fn within(&self, scope: &str) -> Option<Self> {
        Scope::parse(scope).part_of(self)
    }

    fn reaches_outside(&self, scope: &str) -> Option<String> {
        let scope = Scope::parse(scope);
        scope.needs_others_for(self).then(|| scope.user.to_owned())
    }
}

fn shows_inbox(verb: &Verb) -> bool {
    matches!(&verb.act, Act::Fetch { folder, .. } if folder.is_inbox())
}

fn show(messages: &[Message]) -> String {
    match messages {
        [] => "nothing".into(),
        [one] => one.to_string(),
        [one, ..] => format!("{one} and {} more", messages.len() - 1),
    }
}

/// Whether fetching these items sets `\Seen` (RFC 3501, 6.4.5).
fn marks_seen(items: &str) -> bool {
    split_items(items).iter().any(|item| {
        let item = item.to_uppercase();
        item.starts_with("BODY[") || item == "RFC822" || item == "RFC822.TEXT"
    })
}

/// The same items in the forms that change nothing.
fn peeking(items: &str) -> String {
    let peek = |item: String| match item.to_uppercase().as_str() {
        "RFC822" => "BODY.PEEK[]".into(),
        "RFC822.TEXT" => "BODY.PEEK[TEXT]".into(),
        upper if upper.starts_with("BODY[") => format!("BODY.PEEK{}", &item[4..]),
        _ => item,
    };
    split_items(items)
        .into_iter()
        .map(peek)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Items are separated by spaces, but not inside of brackets.
pub fn split_items(items: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut depth = 0i32;
    for c in items.chars() {
        depth += match c {
            '[' => 1,
            ']' => -1,
            _ => 0,
        };
        match (c, depth, found.last_mut()) {
            (' ', 0, _) => found.push(String::new()),
            (_, _, Some(last)) => last.push(c),
            _ => {}
        }
    }
    found.retain(|item| !item.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use undo::Verb as _;

    fn folder(name: &str) -> Folder {
        let id = if name == "INBOX" {
            names::inbox()
        } else {
            names::hash(&[name.as_bytes()])
        };
        Folder {
            id,
            name: name.into(),
        }
    }

    fn m(ids: &[u64]) -> Vec<Message> {
        ids.iter().map(|&id| Message { id, nth: 1 }).collect()
    }

    fn deliver() -> Verb {
        let body = Bytes(b"Subject: s\r\n\r\n".to_vec());
        let (from, to) = ("a@b".into(), "ann@c".into());
        Verb::new(
            "",
            Act::Deliver {
                id: 1,
                from,
                to,
                body,
                options: "".into(),
                window_s: 9,
            },
        )
    }

    fn fetch(user: &str, f: &str, ids: &[u64]) -> Verb {
        Verb::new(
            user,
            Act::Fetch {
                folder: folder(f),
                messages: m(ids),
                items: "BODY[]".into(),
            },
        )
    }

    fn store(f: &str, ids: &[u64]) -> Verb {
        let (how, flags) = ("+FLAGS".into(), "\\Seen".into());
        Verb::new(
            "ann",
            Act::Store {
                folder: folder(f),
                messages: m(ids),
                how,
                flags,
            },
        )
    }

    fn copy(f: &str, ids: &[u64], to: &str) -> Verb {
        Verb::new(
            "ann",
            Act::Copy {
                folder: folder(f),
                messages: m(ids),
                to: folder(to),
            },
        )
    }

    fn moved(f: &str, ids: &[u64], to: &str) -> Verb {
        Verb::new(
            "ann",
            Act::Move {
                folder: folder(f),
                messages: m(ids),
                to: folder(to),
            },
        )
    }

    fn expunge(f: &str, ids: &[u64]) -> Verb {
        Verb::new(
            "ann",
            Act::Expunge {
                folder: folder(f),
                messages: m(ids),
            },
        )
    }

    fn append(f: &str, id: u64) -> Verb {
        let (flags, date, body) = Default::default();
        Verb::new(
            "ann",
            Act::Append {
                folder: folder(f),
                id,
                flags,
                date,
                body,
            },
        )
    }

    #[test]
    fn the_rules_of_the_paper() {
        let both = |a: &Verb, b: &Verb| {
            assert_eq!(a.commutes(b), b.commutes(a), "{a:?} {b:?}");
            a.commutes(b)
        };
        // 4.1.3, sentence by sentence.
        assert!(both(&deliver(), &deliver()), "any two SMTP verbs");
        assert!(
            both(
                &fetch("ann", "INBOX", &[1]),
                &expunge("INBOX", &[1]).of("ben")
            ),
            "different users"
        );
        assert!(both(&deliver(), &store("INBOX", &[2])), "SMTP and IMAP");
        assert!(
            !both(&deliver(), &store("INBOX", &[1])),
            "unless it names this very message"
        );
        assert!(
            both(&deliver(), &fetch("ann", "x", &[2])),
            "a fetch elsewhere"
        );
        assert!(
            !both(&deliver(), &fetch("ann", "INBOX", &[2])),
            "unless it is a fetch of an inbox"
        );
        assert!(
            !both(&expunge("x", &[1]), &fetch("ann", "x", &[2])),
            "expunge and fetch, one folder"
        );
        assert!(
            !both(&store("x", &[1, 2]), &copy("x", &[2], "y")),
            "store and copy, one message"
        );
        assert!(both(&store("x", &[1]), &copy("x", &[2], "y")));
        assert!(
            both(&append("x", 5), &store("x", &[6])),
            "append and store, different messages"
        );
        assert!(!both(&append("x", 5), &store("x", &[5])));
        assert!(
            both(&append("x", 5), &fetch("ann", "x", &[6])),
            "as do append and fetch"
        );
        // And what follows from them.
        let delete = Verb::new(
            "ann",
            Act::Delete {
                folder: folder("x"),
            },
        );
        assert!(!both(&delete, &append("x", 1)));
        assert!(!both(&copy("x", &[1], "y"), &expunge("y", &[1])));
        assert!(both(&append("x", 5), &expunge("x", &[6])), "others go");
        assert!(
            !both(&append("x", 5), &expunge("x", &[5])),
            "it must have come before it goes"
        );
        assert!(!both(&append("x", 5), &moved("x", &[5], "y")));
        assert!(both(&append("x", 5), &moved("x", &[6], "y")));
        let explain = Verb::new(
            "ann",
            Act::Explain {
                id: 5,
                body: Bytes(Vec::new()),
            },
        );
        assert!(!both(&explain, &moved("INBOX", &[5], "y")));
        let look = fetch("ann", "INBOX", &[5]);
        assert!(
            !both(&explain, &look),
            "it must have come before it is read"
        );
        assert!(
            !both(&copy("x", &[1], "y"), &copy("z", &[1], "y")),
            "which copy is the first"
        );
        assert!(
            !both(&deliver(), &store("INBOX", &[1])),
            "a verb that names what is delivered"
        );
    }

    impl Verb {
        fn of(mut self, user: &str) -> Verb {
            self.user = user.into();
            self
        }
    }

    #[test]
    fn a_fetch_that_marks_is_read_in_its_peeking_form() {
        let verb = |items: &str| {
            Verb::new(
                "ann",
                Act::Fetch {
                    folder: folder("x"),
                    messages: m(&[1]),
                    items: items.into(),
                },
            )
        };
        assert!(matches!(
            verb("FLAGS BODY.PEEK[HEADER]").access(),
            Access::Reads
        ));
        let Access::ReadsAs(Verb {
            act: Act::Fetch { items, .. },
            ..
        }) = verb("UID BODY[HEADER.FIELDS (TO CC)]<0.5> RFC822").access()
        else {
            panic!("it marks");
        };
        assert_eq!(
            items,
            "UID BODY.PEEK[HEADER.FIELDS (TO CC)]<0.5> BODY.PEEK[]"
        );
    }
}
