//! The transaction core of Vista: undo log, page slots, heap; no_std.
#![no_std]
#![deny(unsafe_code)]

pub mod journal;
pub mod pages;
