//! Recovery: the state of the last commit in a fresh worker.
//!
//! 1. the state's own pages, and what was discarded with them;
//! 2. the call that was under way at the crash is settled;
//! 3. files are rolled back, newest change first;
//! 4. descriptors; 5. memory; 6. timers, signals, threads;
//! 7. input that was consumed since the commit is fed again, output on record
//!    is not made again; of a log, every result that it holds is given back.
//!
//! All processes of a run do so at once, and wait for each other where one must not be
//! ahead of the others ([`crate::run::together`]).
//!
//! Nothing here changes Rio except by records that only add, so a crash in the
//! middle of it leads to the same recovery once more.
#![allow(unsafe_code)]

mod closed_behind;
pub mod descriptors;
pub mod dying;
mod fill;
pub mod memory;
pub mod threads;

use crate::commit::now_ns;
use crate::engine::{engine, state};
use crate::object::{
    about, group, identity, input, lock, output, process, pty, pushback, timers, tty, undo,
};
use crate::run::together::{self, Step};
use crate::run::{self, unit};
use crate::state::State;
use crate::{boot, commit, fatal, signal, sys};
use core::sync::atomic::Ordering::*;
use dc_image::boot::{fault, plant};
use dc_image::header::UNCOUNTED;
use dc_image::run::Life;
use dc_image::window::{PAGE, STATE_BASE, STATE_LEN};
use dc_image::{FatalCode, Status};

pub fn recover(warm: bool) -> ! {
    let e = engine();
    let live = e.live();
    live.status.store(Status::Recovering as u32, SeqCst);
    load_state();
    e.pid = sys!(GETPID) as i32;
    let elder = together::is_elder();
    if elder {
        crate::object::record::examine();
        if !warm {
            dying::await_companions();
        }
    }
    together::come_to(Step::Examined);
    if warm && e.slot != 0 && !descriptors::take_over() {
        descriptors::have_all_made_again();
    }
    crate::object::attributes::check_left_behind();
    crate::object::root_directory::restore();
    crate::object::attributes::show();
    crate::object::cpu_time::restore();
    let generation = live.generation.load(Relaxed);
    let counted = live.dead_generation.load(Acquire) == generation
        && live.dead_rchar.load(Relaxed) != UNCOUNTED;
    let count = |of: &core::sync::atomic::AtomicU64| counted.then(|| of.load(Relaxed));
    input::settle(count(&live.dead_rchar), warm);
    output::settle(count(&live.dead_wchar), warm);
    run::shared::join_all(warm);
    let_others_take();
    if warm {
        crate::object::socket::handed::keep(descriptors::last_recovery());
    }
    descriptors::undo_closes(warm && e.slot == 0);
    undo::stamp::look_inside_locks();
    together::come_to(Step::Loaded);
    undo::restore();
    if elder {
        live.generation.store(generation + 1, SeqCst);
        lock::beside(warm && lock::any_posix(), undo::roll_back);
    }
    if e.slot == 0 {
        crate::object::record::note_recovery(warm);
    }
    commit::fault_point(fault::IN_RECOVERY);
    together::come_to(Step::Undone);
    descriptors::restore(warm);
    if warm {
        crate::object::inotify::rewind();
    }
    if e.slot != 0 {
        run::image::renew();
    }
    lock::restore(warm);
    pty::restore(warm);
    group::restore(warm);
    // A log tells what the terminals are to be; until then they stay.
    if !crate::log::replay::is_due() {
        tty::settle();
    }
    let main = threads::first();
    if e.slot != 0 {
        let _guard = e.lock.acquire(main);
        crate::object::record::note_recovery(warm);
    }
    about::tell_file();
    memory::restore();
    // Others may have had the locks until now.
    undo::stamp::look_inside_locks();
    about::tell_ranges();
    run::vfork::forget_lost_interval();
    process::restore();
    restore_dispositions();
    crate::object::epoll::forget_fed();
    crate::trace::recovered();
    crate::event::rolled_back();
    crate::log::begin();
    crate::log::count_input();
    identity::expect_threads();
    threads::restore(main);
    crate::object::proc_file::renew_of_threads();
    timers::restore();
    signal::held::begin(main.slot);
    signal::outside::restore(main.slot, warm);
    run::end::take_signals(main);
    run::end::take_changes(main);
    // A log is replayed by the calls that the program makes, from here on.
    if !crate::log::replay::begin(warm, main) {
        pushback::restore(warm, 0);
        e.replay.begin(warm);
        tty::notice_size(main);
        crate::object::signalfd::put_back(main);
    }
    identity::restore_all(main);
    crate::object::proc_file::rewind_all();
    boot::start_clock();
    unit::runs();
    dying::await_own();
    if elder {
        dying::await_all();
        if e.boot.plant == plant::LOSE_STATUS {
            let zombies = run::all().filter(|(_, p)| p.life() == Life::Zombie);
            zombies.for_each(|(_, p)| p.status.store(0, Relaxed));
        }
    }
    let stops = run::me().stopped.get() != 0;
    // As it was; nobody is told anew. Who continues it waits for that, and must know before it can.
    run::me().thawed.store(stops.into(), SeqCst);
    together::come_to(Step::Ready);
    if stops {
        const SIGSTOP: i32 = 19;
        sys!(KILL, e.pid, SIGSTOP);
    }
    live.status.store(Status::Running as u32, SeqCst);
    note_end();
    threads::go(main)
}

/// Other processes of the run may take descriptors from this one (ptrace(2),
/// PTRACE_MODE_ATTACH), where a security module wants to be asked.
fn let_others_take() {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    sys!(PRCTL, PR_SET_PTRACER, usize::MAX);
}

/// The program goes on: at once, or when its log is replayed.
pub fn note_end() {
    let live = engine().live();
    let end = now_ns();
    live.recovery_end_ns.store(end, Relaxed);
    let n = live.recoveries.load(Relaxed) as usize;
    let took = end.saturating_sub(live.recovery_begin_ns.load(Relaxed));
    live.recovery_ns[n % live.recovery_ns.len()].store(took, Relaxed);
}

/// The tables of the last commit.
fn load_state() {
    let e = engine();
    run::seal::check_state();
    e.store
        .for_each(STATE_BASE, STATE_BASE + STATE_LEN, |page, bytes| {
            // SAFETY: both are whole pages of mapped memory.
            unsafe { core::ptr::copy_nonoverlapping(bytes, page as *mut u8, PAGE) };
        });
    let root = &mut state().root;
    if root.head.layout != size_of::<State>() as u64 {
        fatal::stop(
            FatalCode::OtherVersion,
            0,
            format_args!(
                "the image was written by another version of dcrun (its state has {} bytes, ours {})",
                root.head.layout,
                size_of::<State>()
            ),
        );
    }
    let n = (root.head.discard_count as usize).min(root.head.discards.len());
    for d in &root.head.discards[..n] {
        e.store.forget_older(d.from as usize, d.to as usize, d.seq);
    }
    root.head.discard_count = 0;
    run::seal::check_tables();
}

fn restore_dispositions() {
    if state().root.tree != 0 {
        run::signals::install_all();
    }
    for sig in 1..=64 {
        let act = state().root.actions[sig as usize];
        if signal::RESERVED & signal::bit(sig) == 0 && act.handler != signal::SIG_DFL {
            signal::calls::install_for(sig, &act);
        }
    }
    signal::suspension::install();
}
