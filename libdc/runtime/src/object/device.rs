//! Character devices: those that are nothing but a source or a sink, and the others.
//!
//! /dev/null and its like show nothing to anybody, and give nothing that is missing
//! afterwards. To any other device (the kernel's log, a tun, a sound card, FUSE) what is
//! written is output, and what is read from it is input that the kernel has no more.

use crate::state::{Kind, OpenFile};

/// In `OpenFile::words`: the device's number.
pub const NUMBER: usize = 0;

/// Whether nobody notices what a device is given.
pub fn is_silent(f: &OpenFile) -> bool {
    // mem(4), null(4), random(4): null, zero, full, random, urandom.
    const MEMORY: u64 = 1;
    const SILENT: [u64; 5] = [3, 5, 7, 8, 9];
    let (major, minor) = (f.words[NUMBER] >> 8 & 0xfff, f.words[NUMBER] & 0xff);
    f.kind == Kind::Device && major == MEMORY && SILENT.contains(&minor)
}

/// Whether a read takes something away.
pub fn is_consumed(f: &OpenFile) -> bool {
    f.kind == Kind::Device && !is_silent(f)
}
