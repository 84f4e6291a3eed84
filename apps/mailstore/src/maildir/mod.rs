//! The store: Maildir++ on a file system.
//!
//! ```text
//! mail/anna@example.org/            the account's INBOX
//!   tmp/ new/ cur/                  messages; see `name.rs`
//!   dovecot-uidlist                 which file has which UID; see `uidlist.rs`
//!   dovecot-keywords                which letter is which keyword
//!   mailstore-modseq                mod-sequences; see `modseq.rs`
//!   mailstore-uidvalidity           the last UIDVALIDITY that was given out
//!   subscriptions                   one name a line
//!   .Sent/  .Lists.rust/            further mailboxes, each with the first six
//! ```
//!
//! The layout and the files called dovecot-* are those of Dovecot, on purpose:
//! an operator can put one server in the place of the other over the same
//! files, and no client has to fetch its mail again.
//!
//! **What a power cut leaves.** `disk.rs` has the only calls that change the
//! disk. A message is written to `tmp`, synced, renamed, and its directory
//! synced, before anybody is told that it is there. A UID is synced before it
//! is told. `tests/power_cut.rs` cuts the power after each of these steps.

pub mod account;
pub mod changes;
pub mod disk;
pub mod folders;
pub mod keywords;
pub mod mailbox;
pub mod modseq;
pub mod name;
pub mod uidlist;
