//! Which verbs commute (paper, section 4.1.3).

use super::{Act, Verb};
use crate::names::{self, Folder, Message};

/// Whether it makes no difference which of two verbs is first.
pub(super) fn commute(a: &Verb, b: &Verb) -> bool {
    match (a.is_transport(), b.is_transport()) {
        (true, true) => true,
        (true, false) => !(shows_inbox(b) || a.brings_what_is_named_by(b)),
        (false, true) => !(shows_inbox(a) || b.brings_what_is_named_by(a)),
        (false, false) if a.user != b.user => true,
        (false, false) => {
            let others = b.touches();
            a.touches()
                .iter()
                .all(|x| others.iter().all(|y| touches_commute(x, y)))
        }
    }
}

impl Verb {
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

fn shows_inbox(verb: &Verb) -> bool {
    matches!(&verb.act, Act::Fetch { folder, .. } if folder.is_inbox())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
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
}
