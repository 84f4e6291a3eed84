//! The layout of a run's image in Rio, shared by keeper and runtime; no_std.
#![no_std]
