//! Persistent memory (Rio) on tmpfs, disk or pmem, and a simulator of its crashes.
//!
//! An image is a directory with one file per window. [`Tmpfs`] and [`Pmem`] map the files shared,
//! so that a store is in the image at once; [`Disk`] maps them private and carries commits over by
//! a redo log. [`sim::Sim`] is memory whose every store can be the last one before a crash.
//!
//! This crate knows no transaction: what a commit means is said by whoever calls `order`, `keep`
//! and `seal`.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod area;
mod backend;
#[allow(unsafe_code)]
mod disk;
mod error;
#[allow(unsafe_code)]
mod image;
#[allow(unsafe_code)]
mod machine;
pub mod medium;
#[allow(unsafe_code)]
mod pmem;
pub mod redo;
#[allow(unsafe_code)]
pub mod sim;
#[allow(unsafe_code)]
mod tmpfs;
#[allow(unsafe_code)]
mod windows;

pub use backend::{Backend, Place};
pub use disk::Disk;
pub use error::Error;
pub use image::{Image, effective_uid};
pub use machine::{WriteBack, write_back};
pub use pmem::Pmem;
pub use tmpfs::Tmpfs;
pub use windows::Sharing;
