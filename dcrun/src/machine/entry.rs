//! The C `main`, instead of std's.
//!
//! std's start-up sets SIGPIPE to ignored, opens /dev/null over closed standard
//! descriptors and installs an alternate signal stack. The program that dcrun
//! starts must find all of that as the one who called dcrun left it.

use std::ffi::{c_char, c_int};

#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    // glibc hands the arguments to std before main, so they are there.
    c_int::from(crate::run(std::env::args_os().collect()))
}
