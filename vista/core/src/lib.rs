//! The transaction core of Vista: undo log, page slots, heap; no_std.
#![no_std]
