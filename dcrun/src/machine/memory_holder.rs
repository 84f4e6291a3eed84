//! A process that holds a worker's memory, so that the worker can die at once.
//!
//! A process is not seen dead before the kernel has taken its memory apart:
//! 0.13 ms a megabyte, which is most of a recovery. The memory of a process
//! that shares it with another is not taken apart at its death. So each worker
//! has a companion that shares its memory (and nothing of its life: it is
//! another process, a child of the keeper) and sleeps in the kernel for good.
//! When the worker is dead the keeper starts the next one and kills the
//! companion, which takes the old memory apart on another processor meanwhile.
//!
//! The companion never comes back to user mode, so it does not mind that the
//! runtime unmaps the code it was made by. That it has reached its sleep is
//! proved by moving it from one futex to another: only a sleeper can be moved.
//! Where any of this fails there is no companion, and recovery is slower.

use std::arch::asm;
use std::ptr;
use std::sync::atomic::AtomicU32;

use crate::machine::jump::CloneArguments;
use crate::machine::signals;

const STACK_LEN: usize = 16384;
/// How often the worker looks whether the companion sleeps: some 50 ms.
const PATIENCE: u32 = 100_000;
const FUTEX_WAIT_PRIVATE: usize = 128;
const FUTEX_REQUEUE_PRIVATE: usize = 3 | 128;

/// What worker and companion share for a moment, at the bottom of its stack.
#[repr(C)]
struct Gate {
    arrive: AtomicU32,
    stay: AtomicU32,
    keeper: i32,
}

/// A companion that may not yet be asleep.
pub struct Companion {
    gate: *const Gate,
    pid: i32,
}

/// In the forked child: starts a companion. Its pid is written to `report`.
pub fn start(keeper: i32, report: *mut u32) -> Option<Companion> {
    // SAFETY: a new mapping, large enough and aligned for a gate and a stack.
    // The new process runs `sleep_for_good` on it, and nothing else.
    unsafe {
        let area = libc::mmap(
            ptr::null_mut(),
            STACK_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if area == libc::MAP_FAILED {
            return None;
        }
        let gate = area.cast::<Gate>();
        gate.write(Gate {
            arrive: AtomicU32::new(0),
            stay: AtomicU32::new(0),
            keeper,
        });
        let shared =
            libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID;
        let arguments = CloneArguments {
            flags: shared as u64,
            parent_tid: report as u64,
            stack: area as u64,
            stack_size: STACK_LEN as u64,
            ..CloneArguments::default()
        };
        let pid = clone_onto(&arguments, sleep_for_good, gate);
        (pid > 0).then_some(Companion {
            gate,
            pid: pid as i32,
        })
    }
}

impl Companion {
    /// Waits until it sleeps; without that the code under it must not go.
    pub fn settle(self) {
        // SAFETY: the gate is mapped until the runtime unmaps it, after this.
        unsafe {
            let (arrive, stay) = (&raw const (*self.gate).arrive, &raw const (*self.gate).stay);
            for _ in 0..PATIENCE {
                // Wakes none and moves one; answers how many it moved.
                let moved = raw(
                    libc::SYS_futex,
                    [arrive as usize, FUTEX_REQUEUE_PRIVATE, 0, 1, stay as usize],
                );
                if moved == 1 {
                    return;
                }
                libc::sched_yield();
            }
        }
        signals::send(self.pid, libc::SIGKILL);
    }
}

/// The life of the companion. It shares the worker's thread pointer, so it must
/// not touch errno or anything else of libc's.
unsafe extern "C" fn sleep_for_good(gate: *const Gate) -> ! {
    let every_signal = u64::MAX;
    // SAFETY: raw calls with pointers to live values; the gate outlives the
    // worker's wait, and is not looked at after it.
    unsafe {
        let mask = &raw const every_signal as usize;
        raw(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, mask, 0, 8, 0],
        );
        // Out of reach of what is sent to the program's group: a stop would
        // send it back to user mode. And of its session, whose number must be
        // free for the next worker.
        raw(libc::SYS_setsid, [0; 5]);
        raw(
            libc::SYS_prctl,
            [
                libc::PR_SET_NAME as usize,
                c"dcrun-memory".as_ptr() as usize,
                0,
                0,
                0,
            ],
        );
        raw(
            libc::SYS_prctl,
            [
                libc::PR_SET_PDEATHSIG as usize,
                libc::SIGKILL as usize,
                0,
                0,
                0,
            ],
        );
        if raw(libc::SYS_getppid, [0; 5]) != (*gate).keeper as isize {
            raw(libc::SYS_exit_group, [0; 5]);
        }
        loop {
            let arrive = &raw const (*gate).arrive as usize;
            raw(libc::SYS_futex, [arrive, FUTEX_WAIT_PRIVATE, 0, 0, 0]);
        }
    }
}

/// clone3 with a stack: the child enters `function` and never returns.
///
/// # Safety
/// The stack named in `arguments` must be free to use, and `function` must be
/// able to run on it with `gate`.
unsafe fn clone_onto(
    arguments: &CloneArguments,
    function: unsafe extern "C" fn(*const Gate) -> !,
    gate: *const Gate,
) -> isize {
    let answer: isize;
    // SAFETY: the caller's promise; in the parent this is a plain system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r12") gate,
            in("r13") function,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// A system call that leaves errno alone.
///
/// # Safety
/// The arguments must be what the call wants.
unsafe fn raw(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let answer: isize;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}
