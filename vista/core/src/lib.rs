//! The transaction core of Vista: undo log, page slots, heap.
//!
//! A transaction copies the old bytes to an undo log, lets the program store in place, and commits
//! by one 8-byte store that forgets the log. Recovery and abort are the same walk. There is no redo
//! log, no lock, no system call and one copy; all durability comes from the [`rio_core::Rio`]
//! below.
//!
//! This code also runs inside other programs' processes: no allocator, no libc, no thread-local
//! storage, and no panic on any path an image or an argument can choose.
#![no_std]
#![deny(unsafe_code)]

pub mod frames;
pub mod journal;
pub mod pages;

mod fault;
#[allow(unsafe_code)]
mod header;
#[allow(unsafe_code)]
mod heap;
mod layout;
#[allow(unsafe_code)]
mod log;
mod sizes;
#[allow(unsafe_code)]
mod transaction;

pub use fault::Fault;
pub use header::{Summary, check, read_header};
pub use heap::each_block;
pub use layout::{Geometry, Header, PAGE, SEGMENTS, SegmentInfo, Table, VERSION};
pub use sizes::len_given;
pub use transaction::{Core, Fresh, create, meta_len, meta_len_of_heap};
