//! From a fork of the keeper to the runtime, never to return.
//!
//! Everything here that runs in the child uses only what was prepared before
//! the clone: no allocation, no lock, no std beyond raw calls. The child is a
//! copy of a single-threaded process, so that is prudence rather than need, but
//! it is also what makes a restart take microseconds.

use std::arch::asm;
use std::ffi::CString;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering;

use dc_image::FatalCode;
use dc_image::boot::{BootInfo, Mode};
use dc_image::header::Live;
use dc_image::run::{Process, Run};
use dc_image::window::{ARENA_BASE, ARENA_LEN, PAGE};

use crate::boot_block;
use crate::elf::Segment;
use crate::families::Member;
use crate::machine::birthplace;
use crate::machine::memory_holder;
use crate::machine::process::Rseq;
use crate::machine::signals::{self, Inherited};

/// What a worker is made of; the same for every worker of a run but `info`.
pub struct Plan {
    /// Descriptor of the runtime's executable.
    pub runtime: i32,
    pub entry: u64,
    pub segments: Vec<Segment>,
    pub tail: Vec<u8>,
    pub inherited: Inherited,
    pub rseq: Option<Rseq>,
    /// Where the worker's own /proc/PID/io is kept open for the keeper.
    pub counters: i32,
    /// What the process is called, as execve would have it: at most 15 bytes.
    pub process_name: CString,
    /// Where a child that fails before the jump says so.
    pub live: *mut Live,
    /// Where the first process's companion is noted.
    pub companion: *mut u32,
    /// The table of processes, and what says how long it is.
    pub processes: *const Process,
    pub run: *const Run,
    pub keeper: i32,
}

/// Groups that somebody has begun: by the number that the program knows, and the kernel's.
pub type Groups = Vec<(i32, i32)>;

/// `struct clone_args`, as far as set_tid (Linux 5.5).
#[repr(C)]
#[derive(Default)]
pub struct CloneArguments {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
}

/// Starts a worker, with the number that the program knows it by if it may have that. The
/// child never comes back from here.
pub fn start(
    plan: &Plan,
    info: &BootInfo,
    member: &Member,
    groups: &mut Groups,
) -> io::Result<i32> {
    let mut info = *info;
    info.slot = member.slot.unwrap_or(0);
    info.pid = member.id;
    let wanted = (info.can_set_tid != 0 && member.id != 0).then_some(member.id);
    let mut outcome = cloned(plan, &info, member, groups, wanted);
    if let (Some(_), Err(error)) = (wanted, &outcome) {
        // EEXIST: the old number has a new owner. The program is then told its old number
        // and the kernel's is translated.
        if matches!(
            error.raw_os_error(),
            Some(libc::EEXIST | libc::EPERM | libc::EINVAL)
        ) {
            outcome = cloned(plan, &info, member, groups, None);
        }
    }
    if let Ok(pid) = outcome
        && member.leads_group()
    {
        groups.push((member.group, pid));
    }
    outcome
}

fn cloned(
    plan: &Plan,
    info: &BootInfo,
    member: &Member,
    groups: &mut Groups,
    wanted: Option<i32>,
) -> io::Result<i32> {
    let set_tid = [wanted.unwrap_or(0)];
    let by_keeper = crate::machine::process::pid() == plan.keeper;
    // The first process shares its descriptors with the keeper; each other one has a table of
    // its own.
    let mut flags = match member.slot {
        Some(0) => libc::CLONE_FILES as u64,
        _ => 0,
    };
    if !by_keeper {
        flags |= libc::CLONE_PARENT as u64;
    }
    let arguments = CloneArguments {
        flags,
        exit_signal: if by_keeper { libc::SIGCHLD as u64 } else { 0 },
        set_tid: if wanted.is_some() {
            set_tid.as_ptr() as u64
        } else {
            0
        },
        set_tid_size: wanted.iter().len() as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM and a stack this is a fork: the child goes on in
    // a copy of this frame. The keeper has one thread, so the copy is whole.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        0 => become_worker(plan, info, member, groups),
        pid => Ok(pid as i32),
    }
}

/// Whether a chosen pid is permitted: asking for one that exists is answered by
/// EEXIST if so and by EPERM if not, and makes no process in either case.
pub fn may_choose_pid() -> bool {
    let taken = [crate::machine::process::pid()];
    let arguments = CloneArguments {
        // Sharing everything spares the kernel the copies it would throw away.
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_FS) as u64,
        exit_signal: libc::SIGCHLD as u64,
        set_tid: taken.as_ptr() as u64,
        set_tid_size: 1,
        ..CloneArguments::default()
    };
    // SAFETY: our own pid is taken, so that no child can come of this; should
    // one nevertheless run, it only exits.
    unsafe {
        let answer = libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        );
        if answer == 0 {
            libc::_exit(0);
        }
    }
    io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST)
}

fn become_worker(plan: &Plan, info: &BootInfo, member: &Member, groups: &mut Groups) -> ! {
    // SAFETY: these calls take no pointers but to the name and the registered
    // rseq area, which is unregistered under the address it was registered with.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if libc::getppid() != plan.keeper {
            // The keeper died in between: its death signal will not come.
            libc::_exit(0);
        }
        libc::prctl(libc::PR_SET_NAME, plan.process_name.as_ptr());
    }
    let starts = birthplace::take(plan, member, groups);
    if let Err(error) = starts.and_then(|()| start_members(plan, info, member, groups)) {
        give_up(plan, "start the members of a session", &error);
    }
    if member.slot.is_none() {
        birthplace::stand_in(plan, member, groups)
    }
    // SAFETY: as above.
    unsafe {
        if let Some(rseq) = plan.rseq {
            const UNREGISTER: u32 = 1;
            const SIGNATURE: u32 = 0x5305_3053;
            libc::syscall(
                libc::SYS_rseq,
                rseq.address,
                rseq.len,
                UNREGISTER,
                SIGNATURE,
            );
        }
    }
    signals::give_dispositions_back(&plan.inherited);
    if info.mode == Mode::Fresh as u32 {
        signals::give_mask_back(&plan.inherited);
    }
    // What is not the first sees to these itself, when it has its descriptors.
    let companion = if info.slot == 0 {
        leave_counters(plan.counters);
        memory_holder::start(plan.keeper, plan.companion)
    } else {
        None
    };
    for segment in &plan.segments {
        if let Err(error) = map_segment(plan.runtime, segment) {
            give_up(plan, "map the runtime", &error);
        }
    }
    if let Err(error) = map_anonymous(ARENA_BASE, ARENA_LEN, libc::PROT_READ | libc::PROT_WRITE) {
        give_up(plan, "map the arena", &error);
    }
    if let Some(companion) = companion {
        companion.settle();
    }
    // SAFETY: the arena was just mapped, writable, and is longer than the boot
    // block; BootInfo is plain data and the arena's start is aligned for it.
    unsafe {
        let arena = ptr::with_exposed_provenance_mut::<u8>(ARENA_BASE);
        arena.cast::<BootInfo>().write(*info);
        ptr::copy_nonoverlapping(
            plan.tail.as_ptr(),
            arena.add(boot_block::TAIL),
            plan.tail.len(),
        );
        if info.pid == 0 {
            (*arena.cast::<BootInfo>()).pid = libc::getpid();
        }
        jump(plan.entry, ARENA_BASE as u64)
    }
}

/// Those that this one starts, before it is a worker.
fn start_members(
    plan: &Plan,
    info: &BootInfo,
    member: &Member,
    groups: &mut Groups,
) -> io::Result<()> {
    member
        .members
        .iter()
        .try_for_each(|its| start(plan, info, its, groups).map(drop))
}

/// Opens the counters of this process at a number where the keeper finds them.
/// It must happen now: those of a zombie belong to root, and only a descriptor
/// from before its death still answers to its user.
fn leave_counters(number: i32) {
    // SAFETY: the path is a C string. The low number is in use for a moment in
    // which the keeper opens nothing and no program runs.
    unsafe {
        // A keeper with file capabilities has /proc files that belong to root.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let low = libc::open(c"/proc/self/io".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if low < 0 {
            libc::close(number);
        } else {
            libc::dup3(low, number, libc::O_CLOEXEC);
            libc::close(low);
        }
    }
}

/// Maps one segment of the runtime: file pages, the rest of the last of them
/// zeroed, then zero pages.
fn map_segment(file: i32, segment: &Segment) -> io::Result<()> {
    let mut protection = 0;
    for (wanted, bit) in [
        (segment.readable, libc::PROT_READ),
        (segment.writable, libc::PROT_WRITE),
        (segment.executable, libc::PROT_EXEC),
    ] {
        if wanted {
            protection |= bit;
        }
    }
    let start = segment.address as usize & !(PAGE - 1);
    let file_end = segment.address as usize + segment.file_len as usize;
    let file_pages_end = file_end.next_multiple_of(PAGE);
    let end = (segment.address as usize + segment.memory_len as usize).next_multiple_of(PAGE);
    let anonymous_start = if segment.file_len > 0 {
        let slack = segment.address as usize - start;
        // SAFETY: a fixed mapping in the runtime's window, where nothing of the
        // keeper lies; NOREPLACE makes the kernel check that.
        let got = unsafe {
            libc::mmap(
                ptr::with_exposed_provenance_mut(start),
                file_pages_end - start,
                protection,
                libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE,
                file,
                (segment.offset as usize - slack) as libc::off_t,
            )
        };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if segment.memory_len > segment.file_len && segment.writable {
            // SAFETY: from the end of the file's bytes to the end of its last
            // page, inside the writable mapping just made.
            unsafe {
                ptr::with_exposed_provenance_mut::<u8>(file_end)
                    .write_bytes(0, file_pages_end - file_end);
            }
        }
        file_pages_end
    } else {
        start
    };
    if end > anonymous_start {
        map_anonymous(anonymous_start, end - anonymous_start, protection)?;
    }
    Ok(())
}

fn map_anonymous(start: usize, len: usize, protection: i32) -> io::Result<()> {
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a fixed mapping in the lower half, where nothing of the keeper lies.
    let got = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(start),
            len,
            protection,
            flags,
            -1,
            0,
        )
    };
    if got == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Tells the keeper, through the image, why there is no worker.
fn give_up(plan: &Plan, what: &str, error: &io::Error) -> ! {
    // SAFETY: `live` is the keeper's shared mapping, inherited by this child;
    // while the child lives nobody else writes or reads `message`.
    unsafe {
        let message = &mut (*plan.live).message;
        message.fill(0);
        let len = what.len().min(message.len() - 1);
        message[..len].copy_from_slice(&what.as_bytes()[..len]);
        let detail = error.raw_os_error().unwrap_or(0) as u64;
        (*plan.live).fatal_detail.store(detail, Ordering::Relaxed);
        (*plan.live)
            .fatal
            .store(FatalCode::Internal as u32, Ordering::Release);
        libc::_exit(125)
    }
}

/// Leaves the keeper's code for the runtime's entry, on an aligned stack.
///
/// # Safety
/// `entry` must be code that never returns and takes the boot block in `rdi`.
unsafe fn jump(entry: u64, boot: u64) -> ! {
    // SAFETY: the caller's promise; the stack below rsp is unused, and what is
    // on it will not be looked at again.
    unsafe {
        asm!(
            "and rsp, -16",
            "xor ebp, ebp",
            "jmp {entry}",
            entry = in(reg) entry,
            in("rdi") boot,
            options(noreturn),
        )
    }
}
