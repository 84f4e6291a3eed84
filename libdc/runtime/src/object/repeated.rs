//! Output that re-execution meets again, and must not make.
//!
//! Until the program has caught up with what was seen of it, it must do what it
//! did: nothing that comes from outside may reach it, and no commit but its own
//! may be made, for that would void the record of what is still to come. So
//! signals and the clock of `--interval` wait, as they do while a log is
//! replayed.
//!
//! Among threads the order of events is chance, so that each output follows a
//! commit and is the next thing that its thread does. It is answered before any
//! of them runs: another one might commit first.
#![allow(unsafe_code)]

use super::output::{Call, contents_sum, goes_on, vector_len};
use super::record::{self, IoHead};
use super::{descriptor, fifo, pipe, process, socket, transfer};
use crate::engine::{engine, state};
use crate::fatal;
use crate::machine::frame::{Frame, Local};
use crate::machine::{nr, user};
use crate::signal::held;
use dc_image::FatalCode;
use dc_image::boot::plant;
use vista_core::journal::Record;

/// Where re-execution stands in the record of output already made.
pub struct Replay {
    /// Offset in the journal of the next record to match: of what goes out of the run, and of
    /// what stays within it.
    next: [usize; 2],
    active: bool,
    /// Behind this offset what went into the run's own pipes and sockets counts: earlier they
    /// were made anew, as of the commit.
    counts_from: usize,
}

impl Replay {
    pub const fn new() -> Replay {
        Replay {
            next: [0; 2],
            active: false,
            counts_from: 0,
        }
    }

    /// After a recovery, when the threads stand where they stood at the commit:
    /// output on record is not to be made again.
    pub fn begin(&mut self, warm: bool) {
        self.next = [0; 2];
        self.counts_from = match warm {
            true => record::last_cold_recovery(),
            false => usize::MAX,
        };
        self.active = engine().boot.plant != plant::REPEAT_WRITE && self.any_left();
        if self.active && !crate::run::is_alone() {
            self.answer_threads();
        }
    }

    /// Whether output is still to be met.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// A commit is made, which voids the journal: none may be while output is still
    /// to be met, for then that would come twice.
    pub fn before_commit(&self) {
        if self.active {
            fatal::stop(
                FatalCode::Internal,
                0,
                format_args!(
                    "a commit came before the program had met its output again, as it did not before the crash \
                     (an unseen source of chance)"
                ),
            );
        }
    }

    /// Whether a descriptor's output stays within the run, where a cold recovery makes it again.
    fn stays(fd: i32) -> bool {
        pipe::is_own(fd) || fifo::is_rewound(fd)
    }

    /// The same of a record: its descriptor may be closed by now, or another one's.
    fn stayed(head: &IoHead) -> bool {
        head.thread & record::OWN_PIPE != 0 || fifo::is_rewound(head.fd)
    }

    /// Output that is there and is not to be made again.
    fn output(&self, r: &Record) -> Option<IoHead> {
        if r.kind != record::OUTPUT {
            return None;
        }
        let head = record::value_of::<IoHead>(r.payload)?;
        let is_gone = Self::stayed(&head) && r.offset < self.counts_from;
        (!is_gone && !pipe::is_state(head.fd)).then_some(head)
    }

    fn left(&self, stays: bool) -> impl Iterator<Item = (Record<'static>, IoHead)> {
        record::own(self.next[usize::from(stays)])
            .filter_map(|r| self.output(&r).map(|head| (r, head)))
            .filter(move |(_, head)| Self::stayed(head) == stays)
    }

    fn next_of(&self, slot: u32, stays: bool) -> Option<(Record<'static>, IoHead)> {
        self.left(stays)
            .find(|(_, head)| head.thread & !record::OWN_PIPE == slot)
    }

    fn any_left(&self) -> bool {
        [false, true]
            .into_iter()
            .any(|stays| self.left(stays).next().is_some())
    }

    fn took(&mut self, r: &Record, head: &IoHead) {
        let len = vista_core::journal::RECORD_HEAD + r.payload.len().next_multiple_of(8);
        self.next[usize::from(Self::stayed(head))] = r.offset + len;
        self.active = self.any_left();
    }

    /// The recorded result of the output call that thread `slot` makes now.
    pub fn take(&mut self, slot: u32, fd: i32, sum: u64, len: u64) -> Option<isize> {
        if !self.active || pipe::is_state(fd) {
            return None;
        }
        let stays = fd != process::SIGNAL && Self::stays(fd);
        // (What has become the run's own since stands among the others.)
        let is_it = |(_, head): &(Record, IoHead)| head.fd == fd && head.sum == sum;
        let other = || self.next_of(slot, !stays).filter(is_it);
        let (r, head) = self.next_of(slot, stays).or_else(other)?;
        if head.fd != fd || (head.sum != sum && head.ret == len) {
            fatal::stop(
                FatalCode::Internal,
                0,
                format_args!(
                    "the program does not repeat itself: it wrote {} bytes to descriptor {} before the \
                     crash, and {len} other bytes to {fd} after it (an unseen source of chance)",
                    head.ret, head.fd
                ),
            );
        }
        self.took(&r, &head);
        Some(head.ret as isize)
    }

    /// Each thread that was about to make output on record has made it.
    fn answer_threads(&mut self) {
        for r in crate::object::record::own(0) {
            let Some(head) = self.output(&r) else {
                continue;
            };
            let slot = (head.thread & !record::OWN_PIPE) as usize;
            let is_signal = head.fd == process::SIGNAL;
            let Some(&at) = engine().threads.get(slot) else {
                return;
            };
            if at.is_null() {
                return;
            }
            // SAFETY: a thread's block is never freed, and all threads wait.
            let thread: &mut Local = unsafe { &mut *at };
            if is_signal {
                let args = thread.frame.args();
                if user::read::<[u8; 2]>(thread.frame.rip) != Some(SYSCALL)
                    || process::signal_sum(thread.frame.rax, &args) != head.sum
                {
                    return;
                }
                thread.frame.call_answered(0);
                held::call_begins(thread);
                thread.moved = true;
                self.took(&r, &head);
                continue;
            }
            let written = &mut state().threads[slot].moved_bytes;
            let Some(call) =
                output_next(slot as u32, &thread.frame).filter(|call| is(call, *written, &head))
            else {
                return;
            };
            if call.counted {
                if !answer_one_of_several(thread, &head) {
                    self.took(&r, &head);
                    continue;
                }
                *written = state().threads[slot].messages_sent;
                state().threads[slot].messages_sent = 0;
            } else {
                *written += head.ret as usize;
            }
            let file = descriptor::known_file(head.fd);
            let ends = call.counted
                || *written >= call.len
                || call.is_message()
                || !file.is_some_and(|file| goes_on(&call, file, head.fd));
            if ends {
                if thread.frame.rax == nr::SENDFILE {
                    transfer::answered(slot as u32, thread.frame.args(), *written);
                }
                thread.frame.call_answered(core::mem::take(written));
                held::call_begins(thread);
            }
            thread.moved = true;
            self.took(&r, &head);
        }
    }
}

/// One message of several is answered; whether it was the last.
fn answer_one_of_several(thread: &mut Local, head: &IoHead) -> bool {
    let args = thread.frame.args();
    let sent = &mut state().threads[thread.slot as usize].messages_sent;
    let at = args[1] + *sent * socket::MMSGHDR + 56;
    user::write(at, &(head.ret as u32));
    *sent += 1;
    thread.moved = true;
    *sent >= args[2]
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// The output that a thread makes next, if it makes any.
fn output_next(slot: u32, frame: &Frame) -> Option<Call> {
    if user::read::<[u8; 2]>(frame.rip) != Some(SYSCALL) {
        return None;
    }
    let args = frame.args();
    let (number, len) = match frame.rax {
        nr::WRITE | nr::PWRITE64 => (frame.rax, args[2]),
        nr::WRITEV | nr::PWRITEV | nr::PWRITEV2 => (frame.rax, vector_len(args).unwrap_or(0)),
        nr::SENDTO | nr::SENDMSG => {
            return socket::plain_send(frame.rax, &args)
                .or_else(|| socket::message_of(frame.rax, &args));
        }
        nr::SENDMMSG => {
            let sent = state().threads[slot as usize].messages_sent;
            return socket::nth_of_several(&args, sent);
        }
        nr::SENDFILE => return transfer::output_next(slot, args),
        _ => return None,
    };
    Some(Call::new(number, args, len))
}

/// Whether the record is of this call, of which so much was out.
fn is(call: &Call, written: usize, head: &IoHead) -> bool {
    call.args[0] as i32 == head.fd
        && descriptor::known_file(head.fd).is_some()
        && call
            .behind(written)
            .is_some_and(|rest| contents_sum(&rest) == head.sum || head.ret != rest.len as u64)
}
