//! What a recovery says where it cannot undo, and what it is told to do then.
//!
//! Somebody else has changed what the program had changed, or a step fails. Nothing of
//! theirs is destroyed: the run stops at its last commit and can be resumed, with
//! `dcrun resume NAME --keep theirs` or `--keep ours` where it is for the user to say.

use super::*;
use crate::fatal;
use dc_image::FatalCode;
use dc_image::boot::{Mode, conflict};

/// Why a step was not made.
pub enum Trouble {
    /// Bytes `from..to` are not what the program left there.
    Bytes { from: u64, to: u64 },
    /// The program has stored into it, mapped, and others have it open, or may have been there.
    Shared,
    /// The program has stored into it, mapped, and others have changed it since.
    Since,
    /// It is of another size than the program left it.
    Size { there: u64, left: u64 },
    /// A name leads elsewhere, or something stands where nothing stood.
    Name(&'static str),
    /// Its mode, owner or an attribute is not what the program left.
    Attribute(&'static str),
    /// The file or directory is not there any more, or cannot be reached.
    Gone(isize),
    /// The kernel refuses the step.
    Failed(&'static str, isize),
}

pub type Step = Result<(), Trouble>;

/// What the user wants done where others have changed something. It holds for the
/// recovery that `dcrun resume` begins with.
pub fn wanted() -> u32 {
    let boot = &engine().boot;
    if boot.mode == Mode::Cold as u32 {
        boot.conflict
    } else {
        conflict::STOP
    }
}

/// Whether what is there is to be looked at: not if the user wants the program's own
/// changes undone all the same, and not after a reboot, when a file has what had
/// reached the disk of them.
pub fn compares() -> bool {
    wanted() != conflict::OURS && !rebooted()
}

/// A step was not made: it is left out, or the recovery stops.
pub fn met(path: &[u8], trouble: Trouble) {
    let path = core::str::from_utf8(path.strip_suffix(b"\0").unwrap_or(path)).unwrap_or("?");
    let foreign = !matches!(trouble, Trouble::Failed(..));
    if matches!(trouble, Trouble::Shared) && wanted() == conflict::THEIRS {
        crate::say!("{path}: left as it is, with what the program has stored into it");
        return;
    }
    if foreign && wanted() == conflict::THEIRS {
        crate::say!("{path}: left as others have changed it");
        return;
    }
    match trouble {
        Trouble::Bytes { from, to } => stop(format_args!(
            "undo what was written to {path}: bytes {from} to {to} are not what the program left \
             there; somebody else has changed them"
        )),
        Trouble::Shared => stop(format_args!(
            "undo what was stored into {path}, which is mapped: others have it open, and may have \
             changed it since; nobody can tell"
        )),
        Trouble::Since => stop(format_args!(
            "undo what was stored into {path}, which is mapped: somebody else has changed it since, \
             or the program itself after the kernel had written its page to the disk"
        )),
        Trouble::Size { there, left } if there > left => stop(format_args!(
            "undo what was written to {path}: bytes {left} to {there} are not the program's; \
             somebody else has appended them"
        )),
        Trouble::Size { there, left } => stop(format_args!(
            "undo what was written to {path}: it has {there} bytes, and the program left {left}; \
             somebody else has cut it"
        )),
        Trouble::Name(what) => stop(format_args!("undo a change of the name {path}: {what}")),
        Trouble::Attribute(what) => stop(format_args!(
            "undo a change of {path}: its {what} is not what the program left; somebody else has \
             changed it"
        )),
        Trouble::Gone(e) => stop(format_args!(
            "undo a change of {path}: it is not there any more, or another file is (error {})",
            -e
        )),
        Trouble::Failed(what, e) => fatal::stop(
            FatalCode::CannotRestore,
            e,
            format_args!("undo a change of {path}: {what}: error {}", -e),
        ),
    }
}

fn stop(message: core::fmt::Arguments) -> ! {
    fatal::stop(FatalCode::Conflict, 0, message)
}

static mut REBOOTED: bool = false;

/// Whether the kernel is another one than when the last worker began.
pub fn rebooted() -> bool {
    // SAFETY: written once, before there is a second thread.
    unsafe { *(&raw const REBOOTED) }
}

/// When the first worker begins, and by the elder of a recovery: notes which boot of the machine this is.
pub fn note_boot() {
    use core::sync::atomic::Ordering::Relaxed;
    let mut id = [0u8; 40];
    let fd = crate::proc::open(b"/proc/sys/kernel/random/boot_id\0", O_CLOEXEC);
    if failed(fd) {
        return;
    }
    let n = sys!(READ, fd, id.as_mut_ptr(), id.len());
    crate::object::input::count_read(n);
    sys!(CLOSE, fd);
    let sum = dc_image::header::checksum(&id);
    let before = engine().live().boot_sum.swap(sum, Relaxed);
    // SAFETY: as above.
    unsafe { *(&raw mut REBOOTED) = before != 0 && before != sum };
}
