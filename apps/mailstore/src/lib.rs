//! A small mail server: SMTP, submission, LMTP and IMAP on Maildir.
//!
//! Read `server.rs` for how it is put together, `maildir/mod.rs` for what is on
//! the disk, then `smtp/mod.rs` and `imap/mod.rs`.
#![forbid(unsafe_code)]

pub mod check;
pub mod clock;
pub mod directory;
pub mod embedded;
pub mod failure;
pub mod imap;
pub mod log;
pub mod maildir;
pub mod message;
pub mod net;
pub mod queue;
pub mod sasl;
pub mod server;
pub mod settings;
pub mod smtp;
