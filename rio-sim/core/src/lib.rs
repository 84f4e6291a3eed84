//! The seam between persistent memory and what is built on it; no_std.
#![no_std]
