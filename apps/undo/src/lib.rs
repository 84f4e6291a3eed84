//! Operator Undo: rewind, repair and replay for a network service.
//!
//! A service whose users speak to it through a proxy of ours can be taken back to an earlier point
//! of time, repaired there by any means, and brought forward again with everything that its users
//! did since. The design is that of Brown and Patterson, *Undo for Operators: Building an
//! Undoable E-mail Store* (USENIX 2003), called "the paper" here. This crate is its service-neutral
//! half; `apps/undo-mail` is the half that knows mail, and `keyvalue` is the shortest example.
//!
//! Read [`verb`] (what a service must say), [`manager`] (what an operator can do), then
//! [`timeline`] and [`storage`].
#![forbid(unsafe_code)]

pub mod control;
mod cycle;
mod error;
pub mod manager;
mod scoreboard;
pub mod settled;
pub mod snapshots;
pub mod storage;
pub mod timeline;
pub mod verb;
pub mod when;

pub use cycle::{Cycle, Paradox, Phase, Summary};
pub use error::{Context, Error, Result};
pub use manager::{Manager, Refused, Settings};
pub use scoreboard::Scoreboard;
pub use verb::{
    About, Access, Call, Compensation, Mode, Outcome, Pause, Service, Squash, Status, Timing, Verb,
};
