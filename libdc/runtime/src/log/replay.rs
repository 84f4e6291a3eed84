//! The replay of a log to the program that runs again.
//!
//! The next record is the next call's, or the program has taken another path.
//! Then something decides that the runtime does not see, and to go on would be
//! to show what no failure-free run shows: the program is stopped, and said to.
//!
//! While a replay lasts nothing is committed (that would void what is still to
//! be replayed), no signal is delivered but a fault (a signal closes a log, so
//! there is none in it), and no output is made.

use super::determinant::{self, Head, NOWHERE};
use super::shapes::{self, Also, Shape, Way};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::errno::EFAULT;
use crate::object::buffers::Buffers;
use crate::object::record::{self, IoHead};
use crate::object::{epoll, pushback, timers, tty};
use crate::{event, fatal, recover, sys, table, trace};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use protocols::Event;
use protocols::trace::Fate;
use vista_core::journal::{RECORD_HEAD, Record};

/// Where a replay stands.
pub struct Replay {
    active: bool,
    /// Our own pipes were made anew, as of the commit: what went through them
    /// since goes through them again.
    cold: bool,
    /// The log was closed before the crash.
    closed: bool,
    /// Offset of the next record, and of the end of the log.
    next: usize,
    end: usize,
    /// Records given back.
    taken: u64,
}

impl Replay {
    pub const fn new() -> Replay {
        Replay {
            active: false,
            cold: false,
            closed: false,
            next: 0,
            end: 0,
            taken: 0,
        }
    }

    #[inline(always)]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Calls on our own pipes are made again in this replay.
    pub fn makes_own_pipes_again(&self) -> bool {
        self.active && self.cold
    }

    /// After the last record was used: what came of it is to be made so, unless
    /// it is so still.
    pub fn has_just_ended(&self) -> bool {
        !self.active && (self.closed || self.cold)
    }

    fn is_part(&self, r: &Record) -> bool {
        match r.kind {
            record::DETERMINANT => true,
            record::INPUT | record::MESSAGE | record::OUTPUT => {
                !self.cold
                    || record::value_of::<IoHead>(r.payload)
                        .is_some_and(|h| h.thread & record::OWN_PIPE == 0)
            }
            _ => false,
        }
    }

    fn peek(&self) -> Option<Record<'static>> {
        record::own(self.next)
            .take_while(|r| r.offset < self.end)
            .find(|r| self.is_part(r))
    }
}

/// Whether something of this kind was the next to be put on record.
pub fn has_next(kind: u32) -> bool {
    let next = engine().log.replay.peek();
    next.is_some_and(|r| r.kind == kind)
}

/// At recovery, when the tables are the last commit's: whether the journal is a
/// log, to be replayed when all else is restored.
pub fn is_due() -> bool {
    let mut machine = state().root.machine_at_start;
    machine.step(Event::RolledBack);
    machine.protocol().logs() && !machine.flag()
}

/// At recovery, when the state is the last commit's: whether there is a log to
/// replay, or one that was closed at once. If not, what the journal holds of
/// input and output is the business of those who wrote it.
pub fn begin(warm: bool, main: &mut Local) -> bool {
    let e = engine();
    if !is_due() {
        return false;
    }
    let mut end_of_log = closed_at();
    let live = e.live();
    let crashed = live.crashes.load(Relaxed) > 0;
    if crashed && live.crash_commit.load(Relaxed) == e.store.published() {
        let cut = behind_what_was_shown(end_of_log.unwrap_or(e.journal.tail()));
        record::append(record::LOG_CUT, &[&(cut as u32).to_le_bytes(), &[0; 4]]);
        end_of_log = Some(cut);
    }
    let replay = &mut e.log.replay;
    *replay = Replay {
        active: true,
        cold: !warm,
        closed: end_of_log.is_some(),
        end: end_of_log.unwrap_or(e.journal.tail()),
        ..Replay::new()
    };
    let records = crate::object::record::own(0)
        .take_while(|r| r.offset < replay.end)
        .filter(|r| replay.is_part(r));
    let (mut count, mut bytes) = (0, 0);
    for r in records {
        count += 1;
        bytes += r.payload.len() as u64;
    }
    (e.log.records, e.log.bytes) = (count, bytes);
    if count == 0 {
        end(main);
    }
    true
}

/// Where the log was closed or cut, if it was.
fn closed_at() -> Option<usize> {
    let ends = crate::object::record::own(0).filter_map(|r| match r.kind {
        record::LOG_CLOSED => Some(r.offset),
        record::LOG_CUT => record::value_of::<u32>(r.payload).map(|at| at as usize),
        _ => None,
    });
    ends.min()
}

/// The program has crashed by its own fault, and would crash again if all went
/// as it went. What came behind the last thing that others have noticed may go
/// otherwise: the end of a log that holds no more than that. (What was read
/// since is fed again.)
fn behind_what_was_shown(end: usize) -> usize {
    let noticed = |r: &Record| match r.kind {
        record::OUTPUT => true,
        record::DETERMINANT => record::value_of::<Head>(r.payload).is_some_and(|h| {
            matches!(
                h.nr as usize,
                nr::SENDTO
                    | nr::SENDMSG
                    | nr::RECVFROM
                    | nr::RECVMSG
                    | nr::KILL
                    | nr::TKILL
                    | nr::TGKILL
                    | nr::RT_SIGQUEUEINFO
                    | nr::RT_TGSIGQUEUEINFO
            )
        }),
        _ => false,
    };
    let records = crate::object::record::own(0);
    records
        .take_while(|r| r.offset < end)
        .filter(noticed)
        .last()
        .map_or(0, |r| behind(&r))
}

/// Offset of the record that follows.
fn behind(r: &Record) -> usize {
    r.offset + RECORD_HEAD + r.payload.len().next_multiple_of(8)
}

/// All is given back: the program goes on live.
fn end(l: &mut Local) {
    let e = engine();
    e.log.replay.active = false;
    let Replay {
        closed, cold, end, ..
    } = e.log.replay;
    pushback::restore(!cold, end);
    if closed {
        // What came behind is not in the log, so nothing more can be: the next
        // visible event commits first.
        event::tell(Event::NonDeterministic { loggable: false }, 0);
    }
    if closed || cold {
        // Otherwise they are as the last record left them.
        tty::settle();
    }
    tty::notice_size(l);
    event::caught_up(l);
    recover::note_end();
}

/// A record was used; what it told of is determined.
fn took(l: &mut Local, r: &Record) {
    let replay = &mut engine().log.replay;
    replay.next = behind(r);
    replay.taken += 1;
    if r.kind != record::OUTPUT {
        engine().live().replayed_events.fetch_add(1, Relaxed);
        trace::chance(l, Fate::Replay);
    }
    if engine().log.replay.peek().is_none() {
        end(l);
    }
}

/// The record of this call, if the next one is.
fn matching(l: &Local, shape: &Shape, args: &[usize; 6]) -> Option<(Record<'static>, Head)> {
    let r = engine().log.replay.peek()?;
    let head = record::value_of::<Head>(r.payload)?;
    let same = r.kind == record::DETERMINANT
        && head.nr as usize == l.frame.nr
        && head.sum == shape.sum(args);
    same.then_some((r, head))
}

/// Before a call whose row says that it is non-deterministic: its answer, if
/// the log is to give it instead of the kernel.
pub fn instead(l: &mut Local, row: &table::Row, args: &[usize; 6]) -> Option<isize> {
    if row.class != table::Class::NonDeterministic {
        return None;
    }
    // What cannot be logged is not in the log; its commit will be noticed.
    let shape = shapes::of(l.frame.nr, args)?;
    match shape.way {
        Way::Fed => Some(feed(l, &shape, args)),
        Way::Again => {
            let (r, head) = matching(l, &shape, args)?;
            if head.ret >= 0 {
                return None;
            }
            took(l, &r);
            Some(head.ret as isize)
        }
        Way::AgainFed => None,
    }
}

/// In the middle of a call, where chance comes in: the recorded answer, while a
/// replay lasts.
pub fn answer(l: &mut Local) -> Option<isize> {
    if !engine().log.replay.active {
        return None;
    }
    let args = l.frame.args();
    match shapes::of(l.frame.nr, &args) {
        Some(shape) => Some(feed(l, &shape, &args)),
        None => diverged(l),
    }
}

fn feed(l: &mut Local, shape: &Shape, args: &[usize; 6]) -> isize {
    let Some((r, head)) = matching(l, shape, args) else {
        diverged(l)
    };
    if !determinant::give_back(r.payload, &head, shape, args) {
        diverged(l)
    }
    if head.position != NOWHERE {
        sys!(LSEEK, args[0], head.position, 0);
    }
    if shape.also == Also::Disarm && head.ret > 0 {
        epoll::reported_again(args, head.ret as usize);
    }
    took(l, &r);
    head.ret as isize
}

/// After a call that was made again: its answer must be the recorded one, or is
/// replaced by it.
pub fn verify(l: &mut Local, args: &[usize; 6], ret: isize) -> isize {
    let Some(shape) = shapes::of(l.frame.nr, args) else {
        diverged(l)
    };
    let Some((r, head)) = matching(l, &shape, args) else {
        diverged(l)
    };
    match shape.way {
        Way::AgainFed => {
            if !determinant::give_back(r.payload, &head, &shape, args) {
                diverged(l)
            }
            if head.position != NOWHERE && head.ret >= 0 {
                timers::was_set_at(l.frame.nr, args, head.position);
            }
        }
        _ if head.ret == ret as i64 => {}
        _ => stop(format_args!(
            "{} answers {ret}, and {} before the crash: something outside has changed",
            table::row(l.frame.nr).name,
            head.ret,
        )),
    }
    took(l, &r);
    head.ret as isize
}

/// A read from a stream: what it got before.
pub fn input(l: &mut Local, fd: i32, sum: u64, to: &Buffers) -> isize {
    let Some(r) = engine().log.replay.peek() else {
        diverged(l)
    };
    if r.kind != record::INPUT {
        return answer(l).unwrap_or(0);
    }
    let bytes = &r.payload[size_of::<IoHead>().min(r.payload.len())..];
    match record::value_of::<IoHead>(r.payload) {
        Some(head) if head.fd == fd && head.sum == sum && bytes.len() <= to.len => {}
        _ => diverged(l),
    }
    let given = to.give(bytes);
    took(l, &r);
    if given { bytes.len() as isize } else { -EFAULT }
}

/// A message: what it was before, given by `give`, which says what the call
/// returns.
pub fn message(
    l: &mut Local,
    sum: u64,
    give: impl FnOnce(&mut Local, &[u8]) -> Option<isize>,
) -> isize {
    let Some(r) = engine().log.replay.peek() else {
        diverged(l)
    };
    if r.kind != record::MESSAGE {
        return answer(l).unwrap_or(0);
    }
    match record::value_of::<IoHead>(r.payload) {
        Some(head) if head.sum == sum => {}
        _ => diverged(l),
    }
    let Some(given) = give(l, r.payload) else {
        diverged(l)
    };
    took(l, &r);
    given
}

/// Output that was made before: its result.
pub fn output(l: &mut Local, fd: i32, sum: u64) -> isize {
    let Some(r) = engine().log.replay.peek() else {
        diverged(l)
    };
    if r.kind != record::OUTPUT {
        return answer(l).unwrap_or(0);
    }
    match record::value_of::<IoHead>(r.payload) {
        Some(head) if head.fd == fd && head.sum == sum => {
            took(l, &r);
            head.ret as isize
        }
        _ => diverged(l),
    }
}

/// Something happens that a log cannot hold, and it holds more.
pub fn unexpected(what: &str) -> ! {
    stop(format_args!(
        "the program comes to {what}, and the log has {Next}"
    ))
}

/// The call is not the one that the log has next.
fn diverged(l: &Local) -> ! {
    let [a, b, c, ..] = l.frame.args();
    let name = table::row(l.frame.nr).name;
    stop(format_args!(
        "the program calls {name}({a:#x}, {b:#x}, {c:#x}), and the log has {Next}"
    ))
}

/// The next record, for people.
struct Next;

impl core::fmt::Display for Next {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Some(r) = engine().log.replay.peek() else {
            return f.write_str("no more records");
        };
        let what = match r.kind {
            record::INPUT => "input",
            record::MESSAGE => "a message",
            record::OUTPUT => "output",
            _ => {
                return match record::value_of::<Head>(r.payload) {
                    Some(h) => {
                        let name = table::row(h.nr as usize).name;
                        write!(f, "{name} (sum {:x}), which answered {}", h.sum, h.ret)
                    }
                    None => f.write_str("a damaged record"),
                };
            }
        };
        match record::value_of::<IoHead>(r.payload) {
            Some(h) => write!(f, "{what} of {} bytes at descriptor {}", h.ret, h.fd),
            None => f.write_str("a damaged record"),
        }
    }
}

fn stop(what: core::fmt::Arguments) -> ! {
    fatal::stop(
        FatalCode::Diverged,
        0,
        format_args!(
            "the program does not repeat itself: at record {} of its log {what}. Something decides \
             that dcrun does not see; nothing wrong was shown. A protocol without -log does not \
             need it to: --fresh --protocol cbndvs",
            engine().log.replay.taken + 1
        ),
    )
}

/// Whether a call number stands for reading at a file's own position.
pub fn reads_at_position(number: usize) -> bool {
    matches!(number, nr::READ | nr::READV | nr::GETDENTS | nr::GETDENTS64)
}
