//! The seam between persistent memory and what is built on it.
//!
//! [`Rio`] is all that a transaction system may ask of persistent memory: windows of mapped bytes,
//! stores into them, and three words about durability (`order`, `keep`, `seal`). The backends live
//! in `rio-sim`; [`Mapped`] stands here because a process without libc uses it too.
//!
//! Rejected: a `flush` and a `fence`, as the processor has them. A disk cannot tell from them which
//! bytes belong to a commit and which are undo images that only memory needs; `order` and `keep`
//! say exactly that.
#![no_std]
#![deny(unsafe_code)]

mod at;
mod checksum;
#[allow(unsafe_code)]
mod mapped;
#[allow(unsafe_code)]
mod rio;

pub use at::At;
pub use checksum::{checksum, mix};
pub use mapped::Mapped;
pub use rio::{Errno, Rio, WINDOWS, Window};
