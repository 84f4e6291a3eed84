//! Telling the protocol what happens, and committing when it asks.
//!
//! `protocols` decides, this file acts. Callers hold the big lock.

use crate::engine::{add, engine, state};
use crate::log::{self, determinant, replay, shapes};
use crate::machine::frame::{ATTENTION_SIGNAL, ATTENTION_STOP, Local};
use crate::machine::nr;
use crate::object::{descriptor, undo};
use crate::state::Kind;
use crate::{commit, trace};
use core::sync::atomic::Ordering::*;
use dc_image::boot::plant;
use protocols::trace::{Class, Fate};
use protocols::{Decision, Event};

/// The machine is told, and the log and `auto` with it. `bytes` is what it
/// takes to log the event.
pub fn tell(event: Event, bytes: usize) -> Decision {
    let e = engine();
    passed_by();
    let open = e.machine.flag();
    let d = e.machine.step(event);
    if e.log.wanted {
        if !open && e.machine.flag() && e.machine.protocol().logs() {
            log::close();
        }
        e.log.chooser.watch(event, bytes);
    }
    d
}

/// What nobody was told of, because it changed nothing: questions for the time.
pub fn passed_by() {
    let e = engine();
    let times = e.times_told.load(Relaxed);
    if times > 0 {
        e.times_told.store(0, Relaxed);
        add(&e.live().nd_events, times);
        if !e.machine.always_nd() {
            let bytes = times * determinant::OF_A_TIME;
            e.log.chooser.passes(times, bytes);
        }
    }
}

/// A non-deterministic result is known and the program has not seen it yet.
/// Where results may be logged, the protocol is told at the end of the call,
/// when all of the result is known ([`settle`]).
pub fn non_deterministic(l: &mut Local) {
    if engine().log.wanted {
        l.chance = true;
        return;
    }
    let e = engine();
    add(&e.live().nd_events, 1);
    if e.nd_cheap.load(Relaxed) && !trace::wanted() {
        return;
    }
    trace::chance(l, Fate::Open);
    let d = tell(Event::NonDeterministic { loggable: false }, 0);
    after(l, d);
}

/// Something non-deterministic that no log can hold: a signal, which comes
/// between two instructions, and nobody says between which; or more bytes than
/// a commit has.
pub fn unloggable(l: &mut Local) {
    add(&engine().live().nd_events, 1);
    trace::chance(l, Fate::Open);
    let d = tell(Event::NonDeterministic { loggable: false }, 0);
    after(l, d);
}

/// Input was consumed; its record, of so many bytes, is in the journal.
pub fn input(l: &mut Local, bytes: usize) {
    log::consumed(l, bytes);
    if !engine().log.wanted {
        return non_deterministic(l);
    }
    add(&engine().live().nd_events, 1);
    let d = tell(Event::NonDeterministic { loggable: true }, bytes);
    logged(l, d, bytes);
}

/// The end of a call with a non-deterministic result: it is logged, if it can
/// be and the protocol wants it. During a replay it is compared. Returns the
/// result that the program is to see.
pub fn settle(l: &mut Local, args: &[usize; 6], ret: isize) -> isize {
    l.chance = false;
    let e = engine();
    if e.log.replay.is_active() {
        return replay::verify(l, args, ret);
    }
    add(&e.live().nd_events, 1);
    if is_nothing() {
        return ret;
    }
    let number = l.frame.nr;
    // A call that was broken off is not logged.
    let shape = if l.interrupted || undo::shows_in(number, args, ret) {
        None
    } else {
        shapes::of(number, args)
    };
    let Some(shape) = shape else {
        trace::chance(l, Fate::Open);
        let d = tell(Event::NonDeterministic { loggable: false }, 0);
        after(l, d);
        return ret;
    };
    let watched = e.log.chooser.is_on();
    let size = if watched {
        determinant::size(&shape, args, ret)
    } else {
        0
    };
    if e.nd_cheap.load(Relaxed) {
        e.log.chooser.passes(1, size as u64);
        return ret;
    }
    let d = tell(Event::NonDeterministic { loggable: true }, size);
    let mut bytes = size;
    // What a commit follows is committed with.
    if d.log && !l.commit_after {
        let begin = e.log.chooser.times_a_record().then(commit::now_ns);
        bytes = determinant::append(number, &shape, args, ret, position(number, args));
        if let Some(begin) = begin {
            e.log.chooser.record_took(commit::now_ns() - begin, bytes);
        }
    }
    logged(l, d, bytes);
    ret
}

/// A read that a replay will not make moves its file all the same; a timer that
/// it sets anew was set long before.
fn position(number: usize, args: &[usize; 6]) -> u64 {
    if matches!(
        number,
        nr::ALARM | nr::SETITIMER | nr::TIMER_SETTIME | nr::TIMERFD_SETTIME
    ) {
        return commit::now_ns();
    }
    let fd = args[0] as i32;
    let moves = replay::reads_at_position(number)
        && descriptor::known_file(fd).is_some_and(|file| {
            matches!(
                descriptor::open_file(file).kind,
                Kind::Regular | Kind::Directory | Kind::Device | Kind::Other
            )
        });
    if moves {
        determinant::position(fd)
    } else {
        determinant::NOWHERE
    }
}

/// What was decided about a result that can be logged.
fn logged(l: &mut Local, d: Decision, bytes: usize) {
    if !d.log {
        trace::chance(l, Fate::Open);
        return after(l, d);
    }
    // In memory the record is durable already.
    trace::chance(l, if d.flush { Fate::Log } else { Fate::Queue });
    log::grew(l, bytes);
    if d.flush {
        log::flush();
    }
    after(l, d);
}

/// Whether the program has yet to catch up with what was seen of it: its log is
/// replayed, or output on record is still to be met. Until then nothing from
/// outside may reach it, and no commit may void what is still to come.
pub fn is_behind() -> bool {
    let e = engine();
    e.log.replay.is_active() || e.replay.is_active()
}

/// That is over: what has waited for it comes now.
pub fn caught_up(l: &mut Local) {
    if crate::thread::signal_waits(l) {
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
    if engine().tick.load(Relaxed) {
        l.attention.fetch_or(ATTENTION_STOP, SeqCst);
    }
}

/// Whether a tick of `--interval` is due; the caller commits.
pub fn takes_tick() -> bool {
    let tick = &engine().tick;
    tick.load(Relaxed) && !is_behind() && tick.swap(false, Relaxed)
}

/// The same for a call that waits, which the tick has broken off: if it may not
/// be taken yet, the call waits on.
pub fn takes_tick_in_wait(l: &mut Local) -> bool {
    if engine().tick.load(Relaxed) {
        l.attention.fetch_and(!ATTENTION_STOP, SeqCst);
    }
    takes_tick()
}

/// Something is about to become visible; commits first if it must.
pub fn visible(local: &mut Local) {
    if engine().log.replay.is_active() {
        replay::unexpected("a visible event");
    }
    add(&engine().live().visible_events, 1);
    if state().root.reads_shared != 0 {
        mark();
    }
    let d = tell(Event::Visible, 0);
    if d.commit_before {
        if engine().boot.plant != plant::SKIP_COMMIT {
            commit_and_move(local);
        }
    } else if d.flush || log::must_flush() {
        log::flush();
    }
    trace::event(local, Class::Visible);
    after(local, d);
}

/// Commits where the call under way has yet to do something or has ended: what
/// `auto` thinks better is in force from here on. The caller holds the lock.
pub fn commit_and_move(l: &mut Local) {
    engine().log.chooser.ride();
    commit::commit(l);
}

/// As [`visible`], for something that a rollback cannot take back and no record
/// tells of: it is committed before, so that re-execution begins with it.
pub fn irrevocable(local: &mut Local) {
    if visible_commits(local) {
        engine().log.chooser.outlived();
    } else {
        tell(Event::CommitRequested, 0);
        commit::commit(local);
    }
}

fn visible_commits(local: &mut Local) -> bool {
    let before = engine().live().commits.load(Relaxed);
    visible(local);
    engine().live().commits.load(Relaxed) != before
}

/// The call under way makes something that outlives a rollback, and that no record
/// tells of: if a log is kept, it is committed with it.
pub fn outlives(l: &mut Local) {
    l.commit_after |= log::is_kept();
    l.outlives = engine().log.chooser.is_on();
}

/// The end of such a call: `auto` learns what a log would have cost there.
pub fn outlived(l: &mut Local) {
    l.outlives = false;
    engine().log.chooser.outlived();
    cheapen();
}

/// A call nobody has classified: committed around, on both sides.
pub fn unknown(local: &mut Local) {
    let d = tell(Event::Unknown, 0);
    if d.commit_before {
        commit::commit(local);
    }
    after(local, d);
}

fn after(local: &mut Local, d: Decision) {
    let e = engine();
    if d.commit_after {
        local.commit_after = true;
    } else {
        cheapen();
    }
    e.log.chooser.consider(local);
}

/// Sets the flag without an event of its own: what happened before may not
/// repeat itself.
pub fn mark() {
    tell(Event::NonDeterministic { loggable: false }, 0);
}

/// Several threads or processes run from now on, or no longer: their interleaving is
/// non-deterministic while they do.
pub fn company(several: bool) {
    let e = engine();
    if several && !e.machine.flag() && e.machine.protocol().logs() {
        log::close();
    }
    e.machine.set_always_nd(several);
    state().root.machine_at_start.set_always_nd(several);
    e.log.chooser.set_threads(several);
    cheapen();
}

/// Notes whether one more non-deterministic event changes nothing: to be called
/// whenever the machine has changed.
pub fn cheapen() {
    let e = engine();
    e.nd_cheap.store(e.machine.flag(), Relaxed);
}

/// A process leaves the run, with a commit: whoever waits for it sees that.
pub fn leaves(l: &mut Local) {
    add(&engine().live().visible_events, 1);
    let _ = l;
}

/// The commit is published.
pub fn committed() {
    let e = engine();
    e.machine.step(Event::Committed);
    cheapen();
    log::after_commit();
    // The last of several is one again.
    if e.machine.always_nd() && crate::run::is_alone() {
        company(false);
        mark();
    }
}

/// Counts messages: whatever goes or comes through a socket. They are told as
/// output and input, because the peer is outside of the computation.
pub fn count_message(number: usize, ret: isize) {
    let live = engine().live();
    match number {
        _ if ret < 0 => {}
        nr::SENDTO | nr::SENDMSG | nr::SENDMMSG | nr::WRITE | nr::WRITEV => {
            add(&live.send_events, 1)
        }
        nr::RECVFROM | nr::RECVMSG | nr::RECVMMSG | nr::READ | nr::READV => {
            add(&live.receive_events, 1)
        }
        _ => {}
    }
}

/// Whether a non-deterministic result changes nothing, whatever the call. `auto`
/// wants to know of those that no log can hold, until several threads run.
#[inline(always)]
pub fn is_nothing() -> bool {
    let e = engine();
    e.nd_cheap.load(Relaxed) && (!e.log.chooser.is_on() || e.machine.always_nd())
}

/// After a recovery: the machine as the committed state has it.
pub fn rolled_back() {
    let e = engine();
    e.machine = state().root.machine_at_start;
    e.machine.step(Event::RolledBack);
    cheapen();
}
