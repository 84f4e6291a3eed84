//! The reserved system call.

use std::arch::asm;
use std::ffi::c_void;
use std::io;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use dc_image::boot::api::{self, Statistics};

use crate::Error;

/// What C registers: a function and its argument.
pub type Function = unsafe extern "C" fn(*mut c_void);

/// The call itself. The number is loaded by an immediate just before the
/// instruction, which is the form that the runtime can patch.
///
/// # Safety
/// `a` and `b` must be what the operation wants.
unsafe fn reserved(operation: u64, a: u64, b: u64) -> i64 {
    let answer: i64;
    // SAFETY: the kernel does not know the number and answers ENOSYS; the
    // runtime keeps to the registers of a system call.
    unsafe {
        asm!(
            "mov eax, {number}",
            "syscall",
            number = const api::NUMBER,
            in("rdi") operation,
            in("rsi") a,
            in("rdx") b,
            out("rax") answer,
            out("rcx") _,
            out("r11") _,
        );
    }
    answer
}

pub fn probe() -> bool {
    // SAFETY: a probe has no arguments.
    unsafe { reserved(api::PROBE, 0, 0) == api::PRESENT as i64 }
}

/// A function of the program, and what to call it with.
#[derive(Clone, Copy)]
struct Registered {
    function: Function,
    argument: *mut c_void,
}

// SAFETY: whoever registers it promises that it can be called with its argument
// as long as the program runs; in which thread is told in the documentation.
unsafe impl Send for Registered {}

/// What runs before the checkpoints that the program asks for, if the runtime
/// cannot call functions before those that it makes itself.
static BEFORE: Mutex<Vec<Registered>> = Mutex::new(Vec::new());

fn before() -> std::sync::MutexGuard<'static, Vec<Registered>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn checkpoint() -> Result<(), Error> {
    // A copy, so that the functions may register others.
    let functions = before().clone();
    for registered in functions.iter().rev() {
        // SAFETY: the promise it was registered with.
        unsafe { (registered.function)(registered.argument) };
    }
    // SAFETY: no arguments.
    understood(unsafe { reserved(api::CHECKPOINT, 0, 0) })
}

pub fn before_checkpoint(function: fn()) -> Result<(), Error> {
    // SAFETY: `enter` takes what it is registered with.
    unsafe { register_before(enter, function as *mut c_void) }
}

pub fn at_recovery(function: fn()) -> Result<(), Error> {
    // SAFETY: as above.
    unsafe { register_recovery(enter, function as *mut c_void) }
}

/// # Safety
/// `function` must be callable with `argument` as long as the program runs.
pub unsafe fn register_before(function: Function, argument: *mut c_void) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    match understood(unsafe {
        reserved(
            api::BEFORE_CHECKPOINT,
            function as usize as u64,
            argument as u64,
        )
    }) {
        Err(Error::NotRecoverable) if probe() => {
            before().push(Registered { function, argument });
            Ok(())
        }
        outcome => outcome,
    }
}

/// # Safety
/// `function` must be callable with `argument` as long as the program runs.
pub unsafe fn register_recovery(function: Function, argument: *mut c_void) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    understood(unsafe { reserved(api::AT_RECOVERY, function as usize as u64, argument as u64) })
}

pub fn statistics() -> Result<Statistics, Error> {
    let mut counted = Statistics::default();
    let size = size_of::<Statistics>() as u64;
    // SAFETY: the runtime writes at most `size` bytes of plain counters.
    understood(unsafe { reserved(api::STATISTICS, ptr::from_mut(&mut counted) as u64, size) })?;
    Ok(counted)
}

/// Calls the Rust function that was registered as the argument.
unsafe extern "C" fn enter(argument: *mut c_void) {
    // SAFETY: only ever registered together with a `fn()` as the argument.
    let function = unsafe { std::mem::transmute::<*mut c_void, fn()>(argument) };
    function();
}

fn understood(answer: i64) -> Result<(), Error> {
    const ABSENT: i64 = -(libc::ENOSYS as i64);
    match answer {
        0.. => Ok(()),
        ABSENT => Err(Error::NotRecoverable),
        error => Err(Error::Refused(io::Error::from_raw_os_error(-error as i32))),
    }
}
