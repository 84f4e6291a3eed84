//! Examples of Vistagrams: programs that send to each other and may all be killed at any moment.
#![deny(unsafe_code)]

pub mod bank;
pub mod counted;
pub mod jobs;
pub mod locks;
pub mod party;
pub mod torment;
pub mod trace;
