//! The verbs of mail (paper, section 4.1): each as it is recorded, replayed and compared.

mod items;
mod order;

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use undo::{About, Access, Timing};

use crate::bytes::Bytes;
use crate::names::{self, Folder, Message};
use crate::scope::Scope;

pub use items::split_items;
use items::{marks_seen, peeking};

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

    /// Fetching text without PEEK sets `\Seen`.
    fn sets_seen(&self) -> bool {
        matches!(&self.act, Act::Fetch { items, .. } if marks_seen(items))
    }
}

impl undo::Verb for Verb {
    fn commutes(&self, other: &Self) -> bool {
        order::commute(self, other)
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

fn show(messages: &[Message]) -> String {
    match messages {
        [] => "nothing".into(),
        [one] => one.to_string(),
        [one, ..] => format!("{one} and {} more", messages.len() - 1),
    }
}
