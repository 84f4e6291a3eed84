//! The verbs of the key-value service.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use undo::{About, Access, Timing};

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verb {
    pub user: String,
    /// Empty for `List`.
    pub key: String,
    pub act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    Get,
    List,
    Put(String),
    Append(String),
    Delete,
    /// Asynchronous: a line with an identity of its own, and how long it may be tried, in ms.
    Post {
        id: u64,
        line: String,
        window_ms: u64,
    },
}

/// What a verb has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shown {
    Nothing,
    Value(Option<String>),
    Keys(Vec<String>),
}

impl Verb {
    pub fn new(user: &str, key: &str, act: Act) -> Verb {
        Verb {
            user: user.into(),
            key: key.into(),
            act,
        }
    }

    fn reads(&self) -> bool {
        matches!(self.act, Act::Get | Act::List)
    }

    pub fn line(&self) -> String {
        match &self.act {
            Act::Get => format!("get {}", self.key),
            Act::List => "list".into(),
            Act::Put(value) => format!("put {} {value}", self.key),
            Act::Append(value) => format!("append {} {value}", self.key),
            Act::Delete => format!("delete {}", self.key),
            Act::Post { id, line, .. } => format!("post {} #{id} {line}", self.key),
        }
    }
}

impl undo::Verb for Verb {
    fn commutes(&self, other: &Self) -> bool {
        if self.user != other.user || (self.reads() && other.reads()) {
            return true;
        }
        if matches!(
            (&self.act, &other.act),
            (Act::Post { .. }, Act::Post { .. })
        ) {
            // Their lines are kept sorted, so that their order shows nowhere.
            return true;
        }
        let one_lists = self.act == Act::List || other.act == Act::List;
        !one_lists && self.key != other.key
    }

    fn independent(&self, other: &Self) -> bool {
        self.commutes(other)
    }

    fn prefers(&self, other: &Self) -> Ordering {
        // Readers first: whoever reads does not wait for somebody who waits to write.
        other.reads().cmp(&self.reads())
    }

    fn timing(&self) -> Timing {
        match self.act {
            Act::Post { window_ms, .. } => Timing::Asynchronous {
                window: Duration::from_millis(window_ms),
            },
            _ => Timing::Synchronous,
        }
    }

    fn access(&self) -> Access<Self> {
        if self.reads() {
            Access::Reads
        } else {
            Access::Writes
        }
    }

    fn about(&self) -> About {
        let line = self.line();
        About {
            kind: line.split(' ').next().unwrap_or_default().into(),
            user: self.user.clone(),
            folder: self.key.clone(),
            line,
            ..About::default()
        }
    }

    fn within(&self, scope: &str) -> Option<Self> {
        (self.user == scope).then(|| self.clone())
    }
}
