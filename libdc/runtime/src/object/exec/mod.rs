//! execve: another program in the same process.
//!
//! The kernel's execve would take the runtime away with the old program, so it
//! is done here: the program's half is unmapped, what does not outlive an exec
//! is reset (handlers, timers, descriptors marked close-on-exec), and the new
//! program is loaded as the first one was. `#!` scripts are followed as the
//! kernel follows them ([`file`]); arguments have the kernel's limits ([`strings`]).
//! Of several threads one is left, which has the number of the process
//! ([`crate::thread::last`]).
//!
//! survives: like everything else; a commit follows at once
#![allow(unsafe_code)]

mod file;
mod strings;

use self::file::{Named, Program};
use self::strings::Strings;
use super::descriptor;
use super::undo::place::AT_FDCWD;
use crate::engine::{engine, state};
use crate::load::Image;
use crate::machine::entry;
use crate::machine::frame::{Frame, Local};
use crate::run::stranger;
use crate::state::Vma;
use crate::thread::last;
use crate::{boot, event, fatal, load, signal, space, sys, thread};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::window::LOWER_HALF;

/// What is to be loaded, complete before the old program is touched.
struct Wanted {
    program: Program,
    arguments: Strings,
    environment: Strings,
}

/// What the caller leaves to the thread that goes on.
static mut LEFT: Option<Wanted> = None;

pub fn execve(l: &mut Local, a: [usize; 6]) -> isize {
    call(l, AT_FDCWD, a[0], a[1], a[2], 0)
}

pub fn execveat(l: &mut Local, a: [usize; 6]) -> isize {
    if a[4] & file::AT_EXECVE_CHECK != 0 {
        // It asks only.
        return sys!(EXECVEAT, a[0], a[1], a[2], a[3], a[4]);
    }
    call(l, a[0] as i32, a[1], a[2], a[3], a[4])
}

fn call(l: &mut Local, dir: i32, path: usize, argv: usize, envp: usize, flags: usize) -> isize {
    let guard = engine().lock.acquire(l);
    let wanted = prepare(dir, path, argv, envp, flags).and_then(|wanted| {
        if let Some(what) = wanted.program.stranger {
            super::seccomp::lets_start_beside(l)?;
            wanted.program.is_beside_the_run(what);
            stranger::start(l, [dir as usize, path, argv, envp, flags])?;
        }
        Ok(wanted)
    });
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(e) => {
            strings::release();
            return e;
        }
    };
    if engine().thread_count.load(Relaxed) > 1 {
        last::end_others(l);
    }
    if last::first_takes_over(l) {
        // SAFETY: under the big lock, which goes to the other thread.
        unsafe { LEFT = Some(wanted) };
        core::mem::forget(guard);
        last::hand_over(l);
    }
    // (The kernel's first thread may wait outside of the program.)
    last::await_only(if l.tid == engine().pid { 1 } else { 2 });
    replace(l, &wanted)
}

/// The kernel's first thread takes the place of the one that has called exec, and has the
/// lock from it.
pub fn go_on(l: &mut Local) -> ! {
    // SAFETY: under the big lock.
    let wanted = unsafe { (*(&raw mut LEFT)).take() };
    let Some(wanted) = wanted else {
        unreachable!("left by the caller")
    };
    replace(l, &wanted);
    l.frame.rax = 0;
    let mask = signal::mask_of(l);
    signal::set_mask(l, mask);
    if core::mem::take(&mut l.commit_after) {
        event::commit_and_move(l);
    }
    engine().lock.give_up();
    // SAFETY: the frame is complete; gs is set.
    unsafe { entry::leave() }
}

/// Everything that can fail while the old program is still there.
fn prepare(dir: i32, path: usize, argv: usize, envp: usize, flags: usize) -> Result<Wanted, isize> {
    let named = Named::new(dir, path, flags)?;
    let mut program = Program::named(&named);
    let file = named.open()?;
    let (mut arguments, environment, mut room) = strings::read(argv, envp, program.name())?;
    program.find(&named, file, &mut arguments, &mut room)?;
    Ok(Wanted {
        program,
        arguments,
        environment,
    })
}

/// The point of no return.
fn replace(l: &mut Local, wanted: &Wanted) -> isize {
    crate::run::vfork::leave_memory();
    // (The first, for it may commit: that finds the old program, whose call is made again.)
    descriptor::close_on_exec(l);
    reset_thread(l);
    reset_signals();
    super::identity::executed(l);
    super::attributes::executed();
    super::aio::leave();
    super::fifo::opening::leave(engine().slot);
    super::timers::delete_all();
    crate::sysv::leave_memory();
    unmap_all();
    let e = engine();
    e.stubs = crate::patch::StubPools::new();
    let root = &mut state().root;
    root.at_recovery = [0; 2];
    root.recovery_return = 0;
    const RLIMIT_STACK: usize = 3;
    if let Ok([soft, _]) = super::limits::value(RLIMIT_STACK) {
        e.boot.stack_limit = soft;
    }
    let program = &wanted.program;
    if program.stranger.is_some() {
        stranger::stand_in(l);
        return changed(l, program);
    }
    match load::program(&Image {
        path: program.path(),
        name: program.name(),
        argv: wanted.arguments.slice(),
        envp: wanted.environment.slice(),
    }) {
        Ok((rip, sp)) => {
            l.frame = Frame::ZERO;
            l.frame.rip = rip;
            l.frame.rsp = sp;
            l.frame.nr = usize::MAX;
        }
        Err((_, why)) => fatal::stop(
            FatalCode::CannotLoad,
            0,
            format_args!("execve: the program file {why}"),
        ),
    }
    changed(l, program)
}

/// The new program, or who stands in its place, is there.
fn changed(l: &mut Local, program: &Program) -> isize {
    strings::release();
    boot::set_name(program.name());
    boot::initial_vectors(l);
    const ARCH_SET_FS: usize = 0x1002;
    sys!(ARCH_PRCTL, ARCH_SET_FS, 0);
    crate::run::vfork::release_parent();
    crate::event::non_deterministic(l);
    // In a run of several, what it has been is of no use to anybody: the next commit
    // begins with what it is.
    l.commit_after = !crate::run::is_tree();
    0
}

/// The old program's memory goes.
fn unmap_all() {
    for v in space::areas().iter() {
        super::memfd::before_unmap(v.start as usize, v.end as usize);
    }
    // Each half at once; the runtime's lies between.
    let is_below = |v: &&Vma| (v.end as usize) <= LOWER_HALF.start;
    let below = space::areas().iter().take_while(is_below);
    let above = space::areas().iter().skip_while(is_below);
    for (first, last) in [
        (below.clone().next(), below.last()),
        (above.clone().next(), above.last()),
    ] {
        if let (Some(first), Some(last)) = (first, last) {
            sys!(MUNMAP, first.start, last.end - first.start);
        }
    }
    // (Of the store no more goes than was there: between areas lie pages of the runtime's.)
    while let Some(first) = space::areas().first().copied() {
        // Areas without a gap between them at once.
        let mut end = first.start;
        for v in space::areas().iter() {
            if v.start != end {
                break;
            }
            end = v.end;
        }
        space::remove(first.start, end);
    }
}

/// What the kernel knows of this thread's memory.
fn reset_thread(l: &mut Local) {
    let pid = state().root.pid;
    let record = &mut state().threads[l.slot as usize];
    let rseq = record.rseq;
    if rseq[0] != 0 {
        sys!(RSEQ, rseq[0], rseq[1], 1, rseq[2]);
    }
    sys!(SET_ROBUST_LIST, 0, 24);
    let (head, tid) = (record.robust_list[0], record.tid);
    if head != 0 {
        thread::release_robust(head, tid);
    }
    record.rseq = [0; 3];
    record.robust_list = [0; 2];
    record.clear_tid = 0;
    record.altstack = [0, 2, 0];
    record.has_no_call_under_way();
    record.name = [0; 16];
    record.tid = pid;
}

/// Handlers go, what is ignored stays ignored.
fn reset_signals() {
    for sig in 1..=64 {
        let act = &mut state().root.actions[sig as usize];
        if [act.handler, act.flags, act.restorer, act.mask as usize] == [0; 4] {
            // As it was when the process began: the kernel has what it needs.
            continue;
        }
        let ignored = act.handler == signal::SIG_IGN;
        *act = crate::state::SigAction::default();
        if ignored {
            act.handler = signal::SIG_IGN;
        }
        let act = *act;
        if signal::RESERVED & signal::bit(sig) == 0 && !ignored {
            signal::calls::install_for(sig, &act);
        }
    }
}
