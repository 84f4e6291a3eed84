//! Operator Undo for mail: a proxy for SMTP and IMAP in front of a mail server that knows nothing
//! of it. See the README for what it does and how to start it.
//!
//! The pieces, from the outside in: [`smtp::front`] and [`imap::front`] are what clients speak to.
//! They make [`verbs`] of what clients want, and give them to the undo manager (crate `undo`),
//! which has them executed by [`store`] on the real server and records them. [`names`] has the
//! names that hold in every state of the store, [`consistency`] what may differ after a replay.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod canonical;
pub mod consistency;
pub mod factory;
pub mod imap;
pub mod names;
pub mod notices;
pub mod proxy;
pub mod scope;
pub mod server;
pub mod settings;
pub mod smtp;
pub mod store;
pub mod verbs;
