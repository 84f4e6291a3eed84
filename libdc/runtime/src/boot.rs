//! How a worker starts: alone in its address space, armed, then either with a
//! fresh program or with the state of the last commit.
#![allow(unsafe_code)]

use crate::engine::{engine, state};
use crate::machine::clock;
use crate::machine::entry;
use crate::machine::sys::failed;
use crate::machine::vector;
use crate::state::State;
use crate::{commit, fatal, load, recover, run, signal, sys, thread, uffd};
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;
use dc_image::header::{self, Live};
use dc_image::window::*;
use dc_image::{BootInfo, FatalCode, Mode, Status};
use protocols::{Machine, Protocol};
use vista_core::journal::{Journal, Words};

const PROT_RW: usize = 3;
const MAP_PRIVATE: usize = 2;
const MAP_SHARED: usize = 1;
const MAP_FIXED: usize = 0x10;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_NORESERVE: usize = 0x4000;

/// First Rust code of a worker.
pub extern "C" fn main(info: *const BootInfo) -> ! {
    // SAFETY: the keeper put it into the arena.
    let boot = unsafe { *info };
    let e = engine();
    e.boot = boot;
    e.arena.init(boot.arena_free as usize);
    let rules = Protocol::from_u8(boot.protocol as u8).map(Protocol::rules);
    clock::keep(rules.is_some_and(|r| !r.log && !r.after_non_deterministic));
    unmap_keeper();
    e.slot = boot.slot as usize;
    map_rio();
    e.image_fd = e.high_fd(high_fd::RIO);
    run::seal::map_newest();
    if e.slot != 0 {
        run::image::open();
    }
    run::me().active.store(0, Relaxed);
    crate::object::counts::take();
    e.pid = sys!(GETPID) as i32;
    run::me().real.store(e.pid, SeqCst);
    run::me().worker.store(e.pid, SeqCst);
    if !vector::detect() {
        fatal::stop(
            FatalCode::Internal,
            0,
            format_args!("this processor's vector state is larger than the runtime keeps"),
        );
    }
    // SAFETY: the keeper put the vector into the arena.
    let auxv = unsafe {
        core::slice::from_raw_parts(boot.auxv.addr as *const [u64; 2], boot.auxv.len as usize)
    };
    const AT_HWCAP2: u64 = 26;
    vector::allow_fsgsbase(auxv.iter().find(|a| a[0] == AT_HWCAP2).map_or(0, |a| a[1]));
    map_tables();
    if let Err(r) = uffd::open() {
        fatal::stop(
            FatalCode::Internal,
            r,
            format_args!(
                "cannot track memory (userfaultfd, pagemap): error {}; see `dcrun doctor`",
                -r
            ),
        );
    }
    if !uffd::track(STATE_BASE, STATE_BASE + STATE_LEN) {
        fatal::stop(
            FatalCode::Internal,
            0,
            format_args!("cannot track memory (UFFDIO_REGISTER); see `dcrun doctor`"),
        );
    }
    signal::install_own();
    // A fault of the runtime's own copies is handled, not fatal.
    let faults = signal::bit(signal::SIGSEGV) | signal::bit(signal::SIGBUS);
    sys!(RT_SIGPROCMASK, 1, &raw const faults, 0, 8);
    if boot.mode == Mode::Fresh as u32 {
        fresh()
    } else {
        recover::recover(boot.mode == Mode::Warm as u32)
    }
}

/// Everything but the runtime's half: the keeper's copy, its stack.
fn unmap_keeper() {
    let lower = LOWER_HALF;
    sys!(MUNMAP, 0x1000, lower.start - 0x1000);
    sys!(MUNMAP, lower.end, USER_END - lower.end);
}

fn map_rio() {
    let e = engine();
    let fd = e.high_fd(high_fd::RIO);
    let r = sys!(
        MMAP,
        RIO_BASE,
        header::IMAGE_MAX,
        PROT_RW,
        MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
        fd,
        0
    );
    if failed(r) {
        fatal::stop(
            FatalCode::Internal,
            r,
            format_args!("map the image: error {}", -r),
        );
    }
    e.live = (RIO_BASE + header::LIVE_OFFSET) as *mut Live;
    let live = e.live();
    // SAFETY: the image is mapped, the keeper has checked its header.
    e.journal = unsafe {
        Journal::new(
            (RIO_BASE + header::JOURNAL_OFFSET) as *mut u8,
            header::JOURNAL_LEN,
            Words {
                word: &raw const live.journal,
                durable: &raw const live.journal_durable,
                published: &raw const live.published,
            },
            e.boot.durable != 0,
        )
    };
}

fn map_tables() {
    let e = engine();
    let flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE;
    sys!(MMAP, STATE_BASE, STATE_LEN, PROT_RW, flags, -1isize, 0);
    e.extra = e.arena.alloc(crate::engine::EXTRA_MAX * 8).cast();
    let buffer = uffd::REGIONS * size_of::<uffd::PageRegion>();
    e.regions = e.arena.alloc(buffer).cast();
    e.taken = e.arena.alloc(buffer).cast();
    e.pieces.init(&mut e.arena);
    e.folded.init(&mut e.arena);
    // All of the table is read at once.
    const MADV_POPULATE_READ: usize = 22;
    run::seal::check_limit();
    let frames = run::me().frame_limit.load(Relaxed) as usize;
    if frames > 0 {
        let len = (frames * 16).next_multiple_of(PAGE);
        sys!(
            MADVISE,
            RIO_BASE + header::TABLE_OFFSET,
            len,
            MADV_POPULATE_READ
        );
    }
    if let Err(full) = run::image::open_store() {
        fatal::stop(
            FatalCode::RioFull,
            full.0,
            format_args!("open the page store: no memory"),
        );
    }
}

fn fresh() -> ! {
    let e = engine();
    let boot = e.boot;
    e.live().generation.fetch_add(1, SeqCst);
    crate::object::undo::conflict::note_boot();
    let s = state();
    s.root.head.layout = size_of::<State>() as u64;
    let protocol = Protocol::from_u8(boot.protocol as u8).unwrap_or(Protocol::Cbndvs);
    e.machine = Machine::new(protocol);
    s.root.machine_at_start = e.machine;
    crate::log::begin();
    s.root.pid = e.pid;
    begin_run();
    s.root.nofile = boot.nofile;
    let umask = sys!(UMASK, 0);
    sys!(UMASK, umask);
    s.root.umask = umask as u32;
    crate::object::process::note_cwd();
    read_dispositions();
    let Some(l) = thread::new_local() else {
        panic!("no memory for the first thread")
    };
    l.tid = s.root.pid;
    let mut mask = 0u64;
    sys!(RT_SIGPROCMASK, 0, 0, &raw mut mask, 8);
    s.threads[l.slot as usize].used = 1;
    s.threads[l.slot as usize].tid = l.tid;
    s.threads[l.slot as usize].altstack = [0, 2, 0];
    // gs must be set before anything can look for the thread's block.
    thread::arm(l);
    crate::object::identity::begin(l);
    crate::object::limits::begin();
    crate::object::descriptor::adopt_inherited();
    match load::first_program() {
        Ok((rip, sp)) => {
            l.frame.rip = rip;
            l.frame.rsp = sp;
        }
        Err((code, why)) => {
            e.live().exit_code.store(code as u32, Relaxed);
            fatal::stop(
                FatalCode::CannotLoad,
                0,
                format_args!("the program file {why}"),
            );
        }
    }
    let exe = state().root.exe;
    let end = exe.iter().position(|&b| b == 0).unwrap_or(0);
    set_name(&exe[..end]);
    signal::suspension::install();
    signal::set_mask(l, mask);
    initial_vectors(l);
    {
        let _guard = e.lock.acquire(l);
        commit::commit(l);
    }
    e.live().status.store(Status::Running as u32, SeqCst);
    start_clock();
    thread::restore_registers(l);
    // SAFETY: the frame is complete.
    unsafe { entry::leave() }
}

/// The table of processes has one: the first.
fn begin_run() {
    let e = engine();
    let (run, me) = (run::run(), run::me());
    run.high.store(1, Relaxed);
    run.elder.store(0, Relaxed);
    run.fault_count.store(0, Relaxed);
    // It was there before this.
    let companion = me.companion.load(Relaxed);
    me.clear();
    me.companion.store(companion, Relaxed);
    me.born.store(1, Relaxed);
    me.real.store(e.pid, Relaxed);
    me.worker.store(e.pid, Relaxed);
    me.id.store(e.pid, SeqCst);
    run.living.store(1, SeqCst);
}

/// The vector state of a fresh process: all initial.
pub fn initial_vectors(l: &mut crate::machine::frame::Local) {
    l.xsave.bytes[..vector::standard_size()].fill(0);
    // MXCSR and the x87 control word as the kernel sets them.
    l.xsave.bytes[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    l.xsave.bytes[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    // SAFETY: a valid standard-format area in which nothing is present.
    unsafe { vector::load(l.xsave.bytes.as_ptr()) };
}

/// Signals that were ignored when dcrun was started stay ignored.
fn read_dispositions() {
    for sig in 1..=64 {
        if signal::RESERVED & signal::bit(sig) != 0 {
            continue;
        }
        let mut act = [0usize; 4];
        sys!(RT_SIGACTION, sig, 0, &raw mut act, 8);
        if act[0] == signal::SIG_IGN {
            state().root.actions[sig as usize].handler = signal::SIG_IGN;
        } else if act[0] != signal::SIG_DFL {
            let dfl = [0usize; 4];
            sys!(RT_SIGACTION, sig, &raw const dfl, 0, 8);
        }
    }
}

/// The name that ps(1) shows: the last part of that which the program was called by, as
/// execve sets it.
pub fn set_name(called: &[u8]) {
    let last = called.rsplit(|&b| b == b'/').next().unwrap_or(called);
    let mut name = [0u8; 16];
    let n = last.len().min(15);
    name[..n].copy_from_slice(&last[..n]);
    const PR_SET_NAME: usize = 15;
    sys!(PRCTL, PR_SET_NAME, name.as_ptr());
    state().root.comm = name;
    run::note_name(&name);
}

/// `--interval`: a timer that ticks with the runtime's own signal.
pub fn start_clock() {
    let ms = engine().boot.interval_ms;
    if ms == 0 {
        return;
    }
    let mut sigevent = [0u8; 64];
    sigevent[8..12].copy_from_slice(&signal::STOP.to_le_bytes());
    const CLOCK_MONOTONIC: usize = 1;
    let own = crate::object::timers::create_own(CLOCK_MONOTONIC, sigevent.as_ptr(), 0);
    let Some(id) = own else {
        crate::say!("--interval: the kernel gives no timer; commits are made by events only");
        return;
    };
    let t = [ms / 1000, ms % 1000 * 1_000_000];
    let spec = [t[0], t[1], t[0], t[1]];
    sys!(TIMER_SETTIME, id, 0, &raw const spec, 0);
}
