//! The interface of `dc.h`: 0, or -1 with errno.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dc_image::boot::api::Statistics;

use crate::Error;
use crate::call::{self, Function};

/// # Safety
/// `file` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dc_init(file: *const c_char) -> c_int {
    if file.is_null() {
        return in_c(Err(Error::Refused(std::io::Error::from_raw_os_error(
            libc::EFAULT,
        ))));
    }
    // SAFETY: the caller's promise.
    let file = unsafe { CStr::from_ptr(file) };
    in_c(crate::init(Path::new(OsStr::from_bytes(file.to_bytes()))))
}

#[unsafe(no_mangle)]
pub extern "C" fn dc_is_recoverable() -> c_int {
    c_int::from(crate::is_recoverable())
}

#[unsafe(no_mangle)]
pub extern "C" fn dc_checkpoint() -> c_int {
    in_c(crate::checkpoint())
}

/// # Safety
/// `function` must be callable with `argument` as long as the program runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dc_before_checkpoint(function: Function, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    in_c(unsafe { call::register_before(function, argument) })
}

/// # Safety
/// `function` must be callable with `argument` as long as the program runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dc_at_recovery(function: Function, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    in_c(unsafe { call::register_recovery(function, argument) })
}

/// # Safety
/// `into` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dc_get_statistics(into: *mut Statistics) -> c_int {
    // SAFETY: the caller's promise.
    in_c(crate::statistics().map(|counted| unsafe { into.write(counted) }))
}

fn in_c(outcome: Result<(), Error>) -> c_int {
    let errno = match outcome {
        Ok(()) => return 0,
        Err(Error::NotRecoverable) => libc::ENOSYS,
        Err(Error::Start(_, cause) | Error::Refused(cause)) => {
            cause.raw_os_error().unwrap_or(libc::EIO)
        }
    };
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}
