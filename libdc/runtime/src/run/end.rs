//! The end of a process of the run, and of one that another one kills.
//!
//! An end is committed before it happens: so no rollback has to bring back a process whose
//! descriptors are closed and whose parent has been told. Then the descriptors go, here
//! and not with the kernel's own end of the process, because a companion shares them; and
//! only then is the parent told.
#![allow(unsafe_code)]

use super::{abandoned, all, has_company, image, me, orphans, process, run, shared, unit, vfork};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::futex;
use crate::object::fifo::opening;
use crate::object::{lock, strays};
use crate::recover::dying;
use crate::signal::queue::SigInfo;
use crate::{commit, event, signal, sys, sysv, thread};
use core::sync::atomic::Ordering::*;
use dc_image::Status;
use dc_image::boot::high_fd;
use dc_image::run::{Life, PROCESS_MAX, Process};

/// How a process ends, as wait(2) has it.
#[derive(Clone, Copy)]
pub enum How {
    Exit(u8),
    Signal(i32),
}

impl How {
    pub fn status(self) -> u32 {
        match self {
            How::Exit(code) => u32::from(code) << 8,
            How::Signal(signo) => signo as u32,
        }
    }
}

/// Ends this process, and the run with it if no other one lives. The caller holds the
/// lock, which is given away.
pub fn end(l: &mut Local, how: How) -> ! {
    if !has_company() {
        end_run(l, how);
    }
    let (e, p) = (engine(), me());
    let id = p.id.load(Relaxed);
    vfork::leave_memory();
    event::leaves(l);
    note_usage(p);
    sysv::ends(e.slot);
    let mut doomed = Doomed::new();
    doom_below(e.slot);
    // One commit for all: behind an earlier one this process would go on, without what it ends
    // of.
    commit::commit_end(l, || {
        thread::release_all_robust();
        let stopped = abandoned::stopped();
        doomed.end_below(e.slot);
        p.status.store(how.status(), Relaxed);
        opening::leave(e.slot);
        orphans::leave_children(e.slot);
        p.ended.store(e.store.published() + 1, SeqCst);
        abandoned::leave(stopped);
        if e.slot == 0 {
            note_status(how);
        }
    });
    doomed.kill();
    vfork::release_parent();
    shared::leave_all();
    run().living.fetch_sub(1, SeqCst);
    // The descriptors of the program, for its companion as well. What the runtime needs
    // to speak is above them. (The keeper has those of the first one, too.)
    let end = match e.slot {
        0 => e.boot.fd_base,
        _ => strays::end(),
    };
    if end > 0 {
        sys!(CLOSE_RANGE, 0, end - 1, 0);
    }
    lock::leave_mapped();
    let companion = p.companion.swap(0, SeqCst);
    if companion != 0 {
        sys!(KILL, companion, signal::SIGKILL);
    }
    if p.has_image.swap(0, SeqCst) != 0 {
        let name = image::name(format_args!("{}", e.slot));
        let at = e.high_fd(high_fd::IMAGES);
        sys!(UNLINKAT, at, name.as_bytes().as_ptr(), 0);
    }
    orphans::tell_those_left(e.slot);
    abandoned::wake();
    tell_parent(e.slot);
    run().ends.fetch_add(1, SeqCst);
    thread::last::nobody_goes_on(l);
    e.lock.give_up();
    // From here on the parent may give the entry to its next child.
    if p.id.load(SeqCst) == id {
        p.left.store(id, SeqCst);
    }
    leave(how)
}

/// The last process: its end is that of the run.
fn end_run(l: &mut Local, how: How) -> ! {
    event::visible(l);
    thread::stop_others(l);
    thread::release_all_robust();
    if engine().slot == 0 {
        note_status(how);
    }
    engine().live().status.store(Status::Done as u32, SeqCst);
    // Before anybody is told: what had ended must not be found running after a power failure.
    crate::object::record::make_durable();
    super::super::object::undo::forget();
    vfork::release_parent();
    leave(how)
}

/// The status of the run is that of its first process.
fn note_status(how: How) {
    let live = engine().live();
    let (code, signo) = match how {
        How::Exit(code) => (code, 0),
        How::Signal(signo) => (0, signo),
    };
    live.seal_end(super::seal::image_id(), code.into(), signo as u32);
}

/// Really ends.
fn leave(how: How) -> ! {
    match how {
        How::Exit(code) => loop {
            sys!(EXIT_GROUP, code);
        },
        How::Signal(signo) => signal::die_of(signo),
    }
}

/// Time that the process and its children have used, for the one that waits for it.
fn note_usage(p: &Process) {
    let [user, system] = crate::object::cpu_time::of_self_and_children();
    p.user_us.store(user, Relaxed);
    p.system_us.store(system, Relaxed);
}

/// The parent of a process that has ended learns of it: whoever waits wakes up, and the
/// signal that the child was to send comes.
pub fn tell_parent(slot: usize) {
    let child = process(slot);
    let Some(parent) = child.parent_at(u64::MAX) else {
        // The keeper's own: nobody waits.
        child.reaped.store(engine().store.published() + 1, SeqCst);
        return;
    };
    unit::look_at(parent);
    let parent = process(parent);
    parent.child_event.fetch_add(1, SeqCst);
    futex::wake_all(&parent.child_event);
    if child.exit_signal.load(Relaxed) != 0 {
        unit::poke(parent);
    }
}

/// Ends other processes of the run, as SIGKILL does: it is no failure, but what the
/// program wanted. The caller holds the lock.
pub fn kill_others(l: &mut Local, is_meant: impl Fn(usize, &Process) -> bool) {
    kill_others_in(l, is_meant, false);
}

/// The same by a call that answers 0 for it. Behind the commit that ends them it is made: made
/// again, it might find that somebody has waited for them meanwhile.
pub fn kill_and_answer(l: &mut Local, is_meant: impl Fn(usize, &Process) -> bool) {
    kill_others_in(l, is_meant, true);
}

fn kill_others_in(l: &mut Local, is_meant: impl Fn(usize, &Process) -> bool, answers: bool) {
    let own = engine().slot;
    let is_meant = |slot, p: &Process| slot != own && p.life() == Life::Lives && is_meant(slot, p);
    if !all().any(|(slot, p)| is_meant(slot, p)) {
        return;
    }
    event::leaves(l);
    let mut meant = Doomed::new();
    for (slot, _) in all().filter(|(slot, p)| is_meant(*slot, p)) {
        meant.add(slot);
        doom(slot);
        doom_below(slot);
    }
    if answers {
        l.frame.rax = 0;
        l.again = false;
    }
    let mut doomed = Doomed::new();
    commit::commit_with(l, || {
        let stopped = abandoned::stopped();
        for slot in meant.slots() {
            doomed.end_below(slot);
            doomed.end(slot);
        }
        abandoned::leave(stopped);
    });
    doomed.kill();
    abandoned::wake();
}

/// A process is to have a part in the commit that ends it.
fn doom(slot: usize) {
    process(slot).doomed.store(1, SeqCst);
    unit::look_at(slot);
}

/// The same of those below it that want to be killed with their parents.
fn doom_below(slot: usize) {
    let is_doomed = |slot: usize| process(slot).doomed.load(SeqCst) != 0;
    let next = || {
        let mut lives = all().filter(|(at, p)| p.life() == Life::Lives && !is_doomed(*at));
        lives.find(|(at, p)| {
            let parent = p.parent_at(u64::MAX);
            let goes = parent.is_some_and(|parent| parent == slot || is_doomed(parent));
            goes && *at != engine().slot && p.death_signal.load(Relaxed) == signal::SIGKILL as u32
        })
    };
    while let Some((at, _)) = next() {
        doom(at);
    }
}

/// Processes that one commit ends, and that are killed when it is published: a bit for each.
/// (Until then they have a part in it, for what they did last is in no other process's tables.)
struct Doomed([u64; PROCESS_MAX / 64]);

impl Doomed {
    fn new() -> Doomed {
        Doomed([0; PROCESS_MAX / 64])
    }

    /// Those below a process that want to be killed with their parents, the lowest first.
    fn end_below(&mut self, slot: usize) {
        while let Some(doomed) = orphans::doomed_below(slot) {
            self.end(doomed);
        }
    }

    fn add(&mut self, slot: usize) {
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    /// Once, whoever is above it.
    fn end(&mut self, slot: usize) {
        if self.has(slot) {
            return;
        }
        let p = process(slot);
        unit::have_released(p);
        sysv::ends(slot);
        p.status.store(signal::SIGKILL as u32, Relaxed);
        p.ended.store(engine().store.published() + 1, SeqCst);
        opening::leave(slot);
        orphans::leave_children(slot);
        if slot == 0 {
            note_status(How::Signal(signal::SIGKILL));
        }
        self.add(slot);
    }

    fn has(&self, slot: usize) -> bool {
        self.0[slot / 64] & 1 << (slot % 64) != 0
    }

    fn slots(&self) -> impl Iterator<Item = usize> {
        (0..PROCESS_MAX).filter(|slot| self.has(*slot))
    }

    /// That is published.
    fn kill(&self) {
        for slot in self.slots() {
            kill_one(slot);
        }
    }
}

fn kill_one(slot: usize) {
    let p = process(slot);
    let real = p.real.load(Relaxed);
    p.left.store(p.id.load(Relaxed), SeqCst);
    super::stranger::gets_too(p, signal::SIGKILL);
    sys!(KILL, real, signal::SIGKILL);
    let companion = p.companion.swap(0, SeqCst);
    if companion != 0 {
        sys!(KILL, companion, signal::SIGKILL);
    }
    // Until they are gone, with descriptors and memory.
    for pid in [real, companion as i32] {
        dying::await_end(pid);
    }
    run().living.fetch_sub(1, SeqCst);
    if p.holds_parent.swap(0, SeqCst) != 0 {
        futex::wake_all(&p.holds_parent);
    }
    orphans::tell_those_left(slot);
    tell_parent(slot);
}

/// Takes the signals of children that have ended since somebody looked: into the queue of
/// this thread, or of the kernel where the thread blocks them and another one may not.
/// In the thread's own course, or in a commit when all threads are stopped.
pub fn take_signals(l: &mut Local) {
    let own = Some(engine().slot);
    let number = engine().store.published() + 1;
    for (_, child) in all() {
        if child.life() != Life::Zombie || child.parent_at(u64::MAX) != own {
            continue;
        }
        // (Of one that this process is about to adopt it is told when that is committed.)
        let told = child.told.load(SeqCst);
        let since = child.parent_since.load(SeqCst);
        if child.is_told() || since >= number {
            continue;
        }
        // The thread may wait again at once: what it takes is of the next commit.
        unit::runs();
        // One thread takes it.
        let taken = child.told.compare_exchange(told, number, SeqCst, SeqCst);
        if taken.is_err() {
            continue;
        }
        let signo = child.exit_signal.load(Relaxed) as i32;
        if signo != 0 {
            child_has_ended(l, child, signo);
        }
    }
    orphans::take_signal(l);
    abandoned::take_signal(l);
}

/// The same for children that were stopped or continued.
pub fn take_changes(l: &mut Local) {
    const SIGCHLD: i32 = 17;
    let own = Some(engine().slot);
    for (_, child) in all() {
        // (Somebody may have waited for it meanwhile.)
        let status = child.change_untold.get() as u32;
        if status == 0 || child.parent_at(u64::MAX) != own {
            continue;
        }
        unit::runs();
        let published = engine().store.published();
        if !child.change_untold.clear_if(status as i32, published) {
            // The keeper has just set the next one, and calls again.
            continue;
        }
        let action = state().root.actions[SIGCHLD as usize];
        if action.flags & signal::SA_NOCLDSTOP == 0 {
            receive(l, &super::wait::info_of_status(child, SIGCHLD, status));
        }
    }
}

fn child_has_ended(l: &mut Local, child: &Process, signo: i32) {
    const SIGCHLD: i32 = 17;
    let action = state().root.actions[signo as usize];
    if signo == SIGCHLD
        && (action.handler == signal::SIG_IGN || action.flags & signal::SA_NOCLDWAIT != 0)
    {
        // Such a parent has no zombies.
        child.reaped.store(engine().store.published() + 1, SeqCst);
        me().child_event.fetch_add(1, SeqCst);
        futex::wake_all(&me().child_event);
    }
    receive(l, &super::wait::info_of(child, signo));
}

/// A signal of the table's: into the queue of this thread, or of the process where the thread
/// blocks it and another one may not; unless nobody asks for it.
pub fn receive(l: &mut Local, info: &SigInfo) {
    const BY_DEFAULT: [i32; 4] = [17, 18, 23, 28];
    let signo = info.signo;
    let action = state().root.actions[signo as usize];
    let bit = signal::bit(signo);
    let blocked = signal::mask_of(l) & bit != 0;
    let nobody_asks = action.handler == signal::SIG_IGN
        || action.handler == signal::SIG_DFL && BY_DEFAULT.contains(&signo);
    if nobody_asks && !blocked {
        return;
    }
    let alone = engine().thread_count.load(Relaxed) <= 1;
    if crate::object::signalfd::masks() & bit != 0 {
        signal::leave_in_kernel(info);
    } else if blocked && !alone {
        signal::for_process::push(info);
    } else {
        l.queue.push(info);
        l.attention
            .fetch_or(crate::machine::frame::ATTENTION_SIGNAL, SeqCst);
    }
}
