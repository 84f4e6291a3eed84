//! What the runtime knows about a thread that has entered it.
//!
//! ```text
//! gs:0     Local: pointers that entry and exit need
//! gs:Frame the program's general registers and xmm0-15
//! ```
//!
//! The runtime has no thread-local storage of its own, because `fs` is the
//! program's; `gs` is free in Linux programs and points here.

use core::sync::atomic::AtomicU32;

/// The program's registers. `rip` and `rax` together say whether the context
/// is "after the call" or "call again": see [`Frame::call_again`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Frame {
    pub r15: usize,
    pub r14: usize,
    pub r13: usize,
    pub r12: usize,
    pub rbp: usize,
    pub rbx: usize,
    pub r11: usize,
    pub r10: usize,
    pub r9: usize,
    pub r8: usize,
    pub rax: usize,
    pub rcx: usize,
    pub rdx: usize,
    pub rsi: usize,
    pub rdi: usize,
    pub rip: usize,
    pub rflags: usize,
    pub rsp: usize,
    pub fs_base: usize,
    /// Number of the system call, -1 for an asynchronous entry.
    pub nr: usize,
    _pad: [usize; 4],
    pub xmm: [[u64; 2]; 16],
}

impl Frame {
    pub const ZERO: Frame = Frame {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rip: 0,
        rflags: 0x202,
        rsp: 0,
        fs_base: 0,
        nr: 0,
        _pad: [0; 4],
        xmm: [[0; 2]; 16],
    };

    pub fn args(&self) -> [usize; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// The context in which the program makes this call once more: the
    /// `syscall` instruction is two bytes long and always still in place.
    pub fn call_again(&mut self) {
        self.rip -= 2;
        self.rax = self.nr;
    }

    /// The context behind the call that it would make next.
    pub fn call_answered(&mut self, ret: usize) {
        self.rip += 2;
        self.rax = ret;
    }
}

/// Bits of [`Local::attention`].
pub const ATTENTION_SIGNAL: u32 = 1;
pub const ATTENTION_STOP: u32 = 1 << 8;
/// Another process commits, and this one is asked to stage.
pub const ATTENTION_STAGE: u32 = 1 << 9;
/// Something has become of this process's children, or of its parent: the thread is to look
/// before it waits.
pub const ATTENTION_LOOK: u32 = 1 << 10;

/// States of a thread, in [`Local::state`].
pub const PROGRAM: u32 = 1;
pub const RUNTIME: u32 = 2;
/// In a kernel call that may last, or waiting for a lock or the end of a
/// commit. Its context in `frame` is complete: a commit need not wait for it.
pub const STOPPED: u32 = 3;

/// Offsets that the entry code uses; the order is asserted below.
#[repr(C, align(64))]
pub struct Local {
    pub this: *mut Local,
    pub stack_top: usize,
    /// Where patched sites jump to.
    pub entry: usize,
    /// Where the functions of the vDSO jump to.
    pub time: usize,
    pub state: AtomicU32,
    pub attention: AtomicU32,
    pub frame: Frame,
    pub window: Window,
    /// Slot in the state's table of threads.
    pub slot: u32,
    pub tid: i32,
    /// Where `frame` stands: true if the call of `frame` has not taken effect.
    pub again: bool,
    /// The protocol wants a commit once the call has taken effect.
    pub commit_after: bool,
    /// The call makes what outlives a rollback, and `auto` is to know.
    pub outlives: bool,
    /// The call was broken off by a signal (it answered EINTR).
    pub interrupted: bool,
    /// And it would not have waited: to the program the signal came before it, so
    /// that it is made behind the handler.
    pub early: bool,
    /// The call under way has had its effect, though it says EFAULT.
    pub is_final: bool,
    /// The call had a non-deterministic result, which the protocol is told of
    /// at the end of the call.
    pub chance: bool,
    /// This call came by SIGSYS: its site may be patched.
    pub trapped: bool,
    /// Not every call is allowed to it ([`crate::object::seccomp`]).
    pub is_filtered: bool,
    /// A recovery has made it, and it has made no call that was asked for since.
    pub is_recovered: bool,
    /// Signals are held until this place ([`crate::signal::held`]), 0 if they are
    /// not; and the timer that makes an end of it.
    pub held_until: u32,
    pub held_by: i32,
    /// The context is another one than at the last commit.
    pub moved: bool,
    /// Memory that the kernel writes when a call under way ends: it must not fall
    /// asleep before.
    pub awaited: [(usize, usize); 4],
    /// `xsave` holds registers to load before the thread first runs.
    pub has_vectors: bool,
    /// Signals that it waits for though it blocks them (sigwait(3)).
    pub awaited_signals: core::sync::atomic::AtomicU64,
    /// The queue was full, so all signals are blocked until some are delivered.
    pub flooded: bool,
    /// A futex: the creator has entered the thread into the tables.
    pub ready: AtomicU32,
    /// The kernel clears this when the thread is gone (set_tid_address).
    pub gone: AtomicU32,
    pub queue: crate::signal::queue::Queue,
    pub xsave: crate::machine::vector::XsaveArea,
}

/// What a thread had in its registers when it asked for the time, see
/// [`crate::machine::clock`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Window {
    pub rcx: usize,
    pub rsp: usize,
    pub rbp: usize,
    pub rbx: usize,
    pub r12: usize,
    pub r13: usize,
    pub r14: usize,
    pub r15: usize,
    pub rdi: usize,
    pub rsi: usize,
    pub rdx: usize,
}

pub const LOCAL_STACK_TOP: usize = core::mem::offset_of!(Local, stack_top);
pub const LOCAL_ENTRY: usize = core::mem::offset_of!(Local, entry);
pub const LOCAL_TIME: usize = core::mem::offset_of!(Local, time);
pub const LOCAL_WINDOW: usize = core::mem::offset_of!(Local, window);
pub const LOCAL_STATE: usize = core::mem::offset_of!(Local, state);
pub const LOCAL_ATTENTION: usize = core::mem::offset_of!(Local, attention);
pub const LOCAL_FRAME: usize = core::mem::offset_of!(Local, frame);
