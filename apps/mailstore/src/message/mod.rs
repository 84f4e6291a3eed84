//! A message as octets: line ends, header fields, addresses, the tree of MIME
//! parts, and what IMAP says of them (ENVELOPE, BODYSTRUCTURE, sections).
//!
//! These work on the message as it is on the wire and never decode, because
//! IMAP hands out what was sent. Only SEARCH looks into decoded text, and takes
//! the crate mail-parser for that. No input is an error: mail is what it is.

pub mod address;
pub mod describe;
pub mod header;
pub mod lines;
pub mod section;
pub mod structure;
pub mod trace;
