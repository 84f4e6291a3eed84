//! What keeper and runtime agree on: where things lie in the worker's address
//! space, how a run's image in Rio is laid out, and how a worker is started.
//!
//! The keeper is an ordinary Rust program, the runtime has no libc at all, and
//! the image outlives both. So this crate holds only plain `repr(C)` data and
//! constants: no behaviour that needs an allocator, no pointer that would mean
//! something else in the other process.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod boot;
pub mod count;
pub mod dated;
pub mod header;
pub mod opened;
mod process;
pub mod run;
pub mod seal;
mod shared;
pub mod stamp;
pub mod state_head;
pub mod terminal;
pub mod window;

pub use boot::{BootInfo, Mode};
pub use header::{FatalCode, Header, Status};
