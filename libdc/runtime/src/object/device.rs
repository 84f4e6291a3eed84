//! Character devices: those that are nothing but a source or a sink, and the others.
//!
//! /dev/null and its like show nothing to anybody, and give nothing that is missing
//! afterwards. To any other device (the kernel's log, a tun, a sound card, FUSE) what is
//! written is output, and what is read from it is input that the kernel has no more.

use crate::state::{Kind, OpenFile};

/// In `OpenFile::words`: the device's number; and nonzero once the device was told something
/// (ioctl(2)) that a new descriptor of it would not know.
pub const NUMBER: usize = 0;
const TOLD: usize = 1;

/// Whether nobody notices what a device is given.
pub fn is_silent(f: &OpenFile) -> bool {
    // mem(4), null(4), random(4): null, zero, full, random, urandom.
    const MEMORY: u64 = 1;
    const SILENT: [u64; 5] = [3, 5, 7, 8, 9];
    let (major, minor) = (f.words[NUMBER] >> 8 & 0xfff, f.words[NUMBER] & 0xff);
    f.kind == Kind::Device && major == MEMORY && SILENT.contains(&minor)
}

/// Whether it gives zeros, as many as are asked for.
pub fn gives_zeros(f: &OpenFile) -> bool {
    const ZERO_AND_FULL: [u64; 2] = [5, 7];
    is_silent(f) && ZERO_AND_FULL.contains(&(f.words[NUMBER] & 0xff))
}

/// Whether a read takes something away.
pub fn is_consumed(f: &OpenFile) -> bool {
    f.kind == Kind::Device && !is_silent(f)
}

/// Whether an ioctl only asks. What is not known to is taken for one that does something,
/// with which nothing goes wrong: it is committed around.
pub fn only_asks(command: usize) -> bool {
    const READS: usize = 2;
    let (kind, nth) = (command >> 8 & 0xff, command & 0xff);
    match (command >> 30, kind) {
        (0, 0x54) => {
            const DRAIN: usize = 0x09;
            // ioctl_tty(2): TCGETS, TCGETA, TIOCGPGRP, TIOCOUTQ, TIOCGWINSZ, TIOCMGET,
            // TIOCGSOFTCAR, FIONREAD, TIOCGSERIAL, TIOCGETD, TIOCGSID, TIOCGLCKTRMIOS,
            // TIOCGICOUNT, FIOQSIZE.
            [
                DRAIN, 0x01, 0x05, 0x0f, 0x11, 0x13, 0x15, 0x19, 0x1b, 0x1e, 0x24, 0x29, 0x56,
                0x5d, 0x60,
            ]
            .contains(&nth)
        }
        // socket(7), netdevice(7): owner, mark, times; names, flags, addresses of interfaces.
        (0, 0x89) => {
            matches!(
                nth,
                0x03..=0x07 | 0x10 | 0x12 | 0x13 | 0x21 | 0x27 | 0x33 | 0x42
            ) || matches!(nth, 0x15..=0x1f) && nth % 2 == 1
        }
        // FIBMAP, FIGETBSZ; FS_IOC_FIEMAP.
        (0, 0) => matches!(nth, 1 | 2),
        (3, 0x66) => nth == 11,
        (direction, _) => direction == READS,
    }
}

/// A device was told something.
pub fn was_told(f: &mut OpenFile) {
    if f.kind == Kind::Device {
        f.words[TOLD] = 1;
    }
}

/// Whether a new descriptor of the device would not be what this one is: what it was told
/// is gone with it (an interface of tun(4), the parameters of sound), or its mount (fuse(4)).
pub fn is_bound(f: &OpenFile) -> bool {
    is_fuse(f) || f.kind == Kind::Device && f.words[TOLD] != 0
}

/// Whether it is what a file system is served through (fuse(4)).
pub fn is_fuse(f: &OpenFile) -> bool {
    const FUSE: (u64, u64) = (10, 229);
    let number = (f.words[NUMBER] >> 8 & 0xfff, f.words[NUMBER] & 0xff);
    f.kind == Kind::Device && number == FUSE
}
