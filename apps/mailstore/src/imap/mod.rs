//! IMAP4rev1 (RFC 3501) with LITERAL+, SASL-IR, ENABLE, ID, IDLE, NAMESPACE,
//! CHILDREN, UIDPLUS, UNSELECT, MOVE, CONDSTORE, ESEARCH, SPECIAL-USE,
//! LIST-EXTENDED, LIST-STATUS and QUOTA.
//!
//! `frame.rs` collects a command with its literals, `parse*.rs` makes it a
//! `Command`, and `session.rs` carries it out with the files beside it. The
//! parsers are pure functions of octets, written here: the crates for IMAP leave
//! out several of these extensions, and two grammars for one line are worse than one.

pub mod change;
pub mod command;
pub mod cursor;
pub mod fetch;
pub mod folders;
pub mod frame;
pub mod login;
pub mod parse;
pub mod parse_fetch;
pub mod parse_search;
pub mod search;
pub mod session;
pub mod view;
