//! What a client can ask for.

use std::time::SystemTime;

use crate::clock::Day;
use crate::maildir::changes::Combine;
use crate::maildir::name::Flags;
use crate::message::section::Section;

#[derive(Debug)]
pub enum Command {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    Authenticate {
        mechanism: String,
        initial: Option<Vec<u8>>,
    },
    Login {
        user: String,
        password: String,
    },
    Enable(Vec<String>),
    Select {
        mailbox: String,
        read_only: bool,
        condstore: bool,
    },
    Create {
        mailbox: String,
        special_use: Vec<String>,
    },
    Delete(String),
    Rename {
        from: String,
        to: String,
    },
    Subscribe(String),
    Unsubscribe(String),
    List(List),
    Lsub {
        reference: String,
        pattern: String,
    },
    Status {
        mailbox: String,
        items: Vec<StatusItem>,
    },
    Append {
        mailbox: String,
        flags: Vec<Flag>,
        date: Option<SystemTime>,
        text: Vec<u8>,
    },
    Namespace,
    GetQuota(String),
    GetQuotaRoot(String),
    Check,
    Close,
    Unselect,
    /// Only these UIDs, if any are given.
    Expunge(Option<Set>),
    Search(Search),
    Fetch(Fetch),
    Store(Store),
    Copy {
        uid: bool,
        set: Set,
        mailbox: String,
        moves: bool,
    },
    Idle,
}

#[derive(Debug, Default)]
pub struct List {
    pub reference: String,
    pub patterns: Vec<String>,
    /// Only mailboxes that are subscribed to, whether they exist or not.
    pub only_subscribed: bool,
    pub only_special: bool,
    pub recursive_match: bool,
    pub return_subscribed: bool,
    pub return_status: Vec<StatusItem>,
    /// The form of RFC 5258, in which a missing mailbox is \NonExistent.
    pub extended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    HighestModSeq,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flag {
    System(Flags),
    Keyword(String),
}

/// A set of numbers: pairs of ends, of which `None` is `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(pub Vec<(Option<u32>, Option<u32>)>);

impl Set {
    /// Whether it has this number, where `*` stands for `last`.
    pub fn has(&self, number: u32, last: u32) -> bool {
        self.ranges(last)
            .any(|(low, high)| (low..=high).contains(&number))
    }

    pub fn ranges(&self, last: u32) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(move |(a, b)| {
            let (a, b) = (a.unwrap_or(last), b.unwrap_or(last));
            (a.min(b), a.max(b))
        })
    }
}

#[derive(Debug, Default)]
pub struct Search {
    pub uid: bool,
    /// The options of ESEARCH, if it is one.
    pub returns: Option<Returns>,
    pub charset: Option<String>,
    pub keys: Vec<Key>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    pub min: bool,
    pub max: bool,
    pub all: bool,
    pub count: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    All,
    Flag(Flag, bool),
    Recent,
    New,
    Old,
    Numbers(Set),
    Uids(Set),
    Before(Day),
    On(Day),
    Since(Day),
    SentBefore(Day),
    SentOn(Day),
    SentSince(Day),
    Larger(u64),
    Smaller(u64),
    Header(String, Vec<u8>),
    Body(Vec<u8>),
    Text(Vec<u8>),
    ModSeq(u64),
    Not(Box<Key>),
    Or(Box<Key>, Box<Key>),
    And(Vec<Key>),
}

#[derive(Debug)]
pub struct Fetch {
    pub uid: bool,
    pub set: Set,
    pub items: Vec<Item>,
    pub changed_since: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Flags,
    Uid,
    InternalDate,
    Size,
    Envelope,
    Body,
    BodyStructure,
    ModSeq,
    Section {
        section: Section,
        partial: Option<(u64, u64)>,
        peek: bool,
        name: SectionName,
    },
}

/// By which of its names a section was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionName {
    Body,
    Rfc822,
    Rfc822Header,
    Rfc822Text,
}

#[derive(Debug)]
pub struct Store {
    pub uid: bool,
    pub set: Set,
    pub combine: Combine,
    pub silent: bool,
    pub flags: Vec<Flag>,
    pub unchanged_since: Option<u64>,
}
