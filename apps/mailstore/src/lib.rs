//! A mail store on Maildir.
#![forbid(unsafe_code)]

pub mod clock;
pub mod failure;
pub mod log;
pub mod maildir;
pub mod message;
