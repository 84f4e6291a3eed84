//! Output: visible events, made exactly once.
//!
//! A write to anything but a file of the program's own is visible. The
//! protocol may want a commit before it; then the call is performed and noted
//! in the journal. After a crash the program runs again from its last commit
//! and makes the same calls in the same order: those that the journal has are
//! answered with their recorded result and not performed (`repeated.rs`). The one call that
//! was under way is settled by what the kernel noted of it (`witness.rs`), or by
//! the keeper's count of the bytes that the dead worker wrote.
//!
//! A write that waits for room goes out in parts, each a visible event of its own
//! ([`stream`]).
#![allow(unsafe_code)]

use super::buffers::is_user;
use super::message::MSG_DONTWAIT;
use super::record::{self, IoHead};
use super::{attributes, descriptor, device, poll, process, pty, regular, socket, undo, witness};
use crate::commit::{self, fault_point};
use crate::engine::{engine, state};
use crate::event;
use crate::fatal;
use crate::log::replay;
use crate::machine::frame::{ATTENTION_STOP, Local};
use crate::machine::sys::{errno::*, failed};
use crate::machine::{entry, nr, user};
use crate::run::ends;
use crate::state::{Kind, OWN};
use crate::thread;
use core::sync::atomic::Ordering::*;
use dc_image::boot::fault;
use dc_image::header::checksum;

/// One buffer or several, as the program gave them.
#[derive(Clone, Copy)]
pub struct Call {
    pub nr: usize,
    pub args: [usize; 6],
    pub len: usize,
    /// Answers EAGAIN instead of waiting for room.
    pub at_once: bool,
    /// Raises no SIGPIPE.
    pub quiet: bool,
    /// One of several messages, which are counted.
    pub counted: bool,
}

impl Call {
    pub fn new(nr: usize, args: [usize; 6], len: usize) -> Call {
        Call {
            nr,
            args,
            len,
            at_once: false,
            quiet: false,
            counted: false,
        }
    }

    /// Whether it is a message: it goes whole or not at all, and no counter of the
    /// kernel counts it.
    pub fn is_message(&self) -> bool {
        matches!(self.nr, nr::SENDTO | nr::SENDMSG)
    }

    /// What is left of it when so many bytes are out: of several buffers, the rest
    /// of one.
    pub fn behind(&self, done: usize) -> Option<Call> {
        if done == 0 {
            return Some(*self);
        }
        let fd = self.args[0];
        let rest = |at, len| Call {
            quiet: self.quiet,
            ..Call::new(nr::WRITE, [fd, at, len, 0, 0, 0], len)
        };
        if self.nr == nr::WRITE {
            return Some(rest(self.args[1] + done, self.len.checked_sub(done)?));
        }
        let mut before = 0;
        for i in 0..self.args[2] {
            let [at, len] = user::read::<[usize; 2]>(self.args[1] + i * 16)?;
            if done < before + len {
                let skip = done - before;
                return Some(rest(at + skip, len - skip));
            }
            before += len;
        }
        None
    }

    /// The first bytes of it: of several buffers, those of one.
    fn beginning(&self, most: usize) -> Call {
        let [fd, at, len, ..] = self.args;
        let [at, len] = match self.nr {
            nr::WRITE => [at, len],
            _ => (0..len)
                .filter_map(|i| user::read::<[usize; 2]>(at + i * 16))
                .find(|part| part[1] > 0)
                .unwrap_or([0; 2]),
        };
        let len = len.min(most);
        Call::new(nr::WRITE, [fd, at, len, 0, 0, 0], len)
    }
}

pub fn write(l: &mut Local, a: [usize; 6]) -> isize {
    if crate::run::has_company()
        && let Some(r) = super::pipe::write_alone(l, a)
    {
        return r;
    }
    perform(l, Call::new(nr::WRITE, a, a[2]), None)
}

pub fn writev(l: &mut Local, a: [usize; 6]) -> isize {
    match vector_len(a) {
        Ok(len) => perform(l, Call::new(nr::WRITEV, a, len), None),
        Err(e) => e,
    }
}

pub fn pwrite(l: &mut Local, a: [usize; 6]) -> isize {
    perform(l, Call::new(nr::PWRITE64, a, a[2]), Some(a[3] as u64))
}

pub fn pwritev(l: &mut Local, a: [usize; 6]) -> isize {
    pwritev_as(l, l.frame.nr, a)
}

/// As the call of a number, which need not be the one that the program makes.
pub fn pwritev_as(l: &mut Local, number: usize, a: [usize; 6]) -> isize {
    match vector_len(a) {
        Ok(len) => {
            let call = Call::new(number, a, len);
            match number == nr::PWRITEV2 && a[3] as isize == -1 {
                true if a[5] == 0 => perform(l, Call::new(nr::WRITEV, a, len), None),
                true => perform(l, call, None),
                false => perform(l, call, Some(a[3] as u64)),
            }
        }
        Err(e) => e,
    }
}

/// Into a socket.
pub fn send(l: &mut Local, c: Call) -> isize {
    stream(l, c.args[0] as i32, &c)
}

/// Bytes named by an iovec array.
pub fn vector_len(a: [usize; 6]) -> Result<usize, isize> {
    if a[2] > 1024 {
        return Err(-EINVAL);
    }
    let (mut sum, mut is_given) = (0usize, true);
    for i in 0..a[2] {
        let Some(v) = user::read::<[usize; 2]>(a[1] + i * 16) else {
            return Err(-EFAULT);
        };
        if (v[1] as isize) < 0 {
            return Err(-EINVAL);
        }
        is_given &= is_user(v[0], v[1]);
        sum = sum.saturating_add(v[1]);
    }
    if is_given { Ok(sum) } else { Err(-EFAULT) }
}

fn perform(l: &mut Local, c: Call, at: Option<u64>) -> isize {
    let fd = c.args[0] as i32;
    let guard = engine().lock.acquire(l);
    let Some(file) = descriptor::file_of(fd) else {
        return -EBADF;
    };
    let f = descriptor::open_file(file);
    if matches!(c.nr, nr::WRITE | nr::PWRITE64) && !is_user(c.args[1], c.len) {
        return -EFAULT;
    }
    match f.kind {
        Kind::Regular if f.inherited == OWN => {
            let written = undo::written::before_write(fd, file, at, &c);
            let r = raw(l, &c);
            fault_point(fault::AFTER_CHANGE);
            undo::written::after_write(fd, written, &c, r);
            regular::after_write(fd, file, at, r);
            r
        }
        Kind::MemFd if f.inherited == OWN => {
            let refused = super::memfd::before_growth(fd, at, c.len as u64);
            if failed(refused) {
                return refused;
            }
            let r = raw(l, &c);
            regular::after_write(fd, file, at, r);
            r
        }
        // There is no place in a stream: ESPIPE.
        Kind::Pipe | Kind::Socket | Kind::Tty | Kind::EventFd if at.is_some() => raw(l, &c),
        Kind::EventFd => {
            drop(guard);
            super::eventfd::write(l, fd, c)
        }
        Kind::Directory => raw(l, &c),
        Kind::Device if device::is_silent(f) => raw(l, &c),
        // It changes this process, and so is made again after a rollback.
        Kind::Other if attributes::is_own(&f.path[..f.path_len as usize]) => {
            let r = raw(l, &c);
            regular::after_transfer(fd, file, at, r);
            r
        }
        Kind::Other if attributes::is_setting(&f.path[..f.path_len as usize]) => {
            let r = raw(l, &c);
            regular::after_transfer(fd, file, at, r);
            attributes::file_written(&f.path[..f.path_len as usize]);
            r
        }
        Kind::Other => {
            drop(guard);
            let r = stream(l, fd, &c);
            let _guard = engine().lock.acquire(l);
            if let Some(file) = descriptor::file_of(fd) {
                regular::after_transfer(fd, file, at, r);
            }
            r
        }
        Kind::Pipe if f.peer != 0 => {
            drop(guard);
            match super::pipe::write(l, c.nr, c.args, c.len) {
                Some(r) => r,
                None => stream(l, fd, &c),
            }
        }
        _ => {
            drop(guard);
            stream(l, fd, &c)
        }
    }
}

/// Output into a terminal, a pipe or a socket. Where it waits for room, it is not cut
/// short for the runtime's own sake or by a death, and beside other threads it waits
/// without the lock, for it may be one of them who makes the room. How much is out
/// is state: a rollback into the middle goes on from there.
fn stream(l: &mut Local, fd: i32, c: &Call) -> isize {
    const PIPE_BUF: usize = 4096;
    // A pipe that poll(2) calls full may have room in its last page.
    let mut has_rest = c.len <= PIPE_BUF && matches!(c.nr, nr::WRITE | nr::WRITEV);
    let last = loop {
        let done = state().threads[l.slot as usize].moved_bytes;
        let Some(mut part) = c.behind(done) else {
            break 0;
        };
        let guard = engine().lock.acquire(l);
        let Some(file) = descriptor::file_of(fd) else {
            break -EBADF;
        };
        if c.at_once {
            break visible(l, fd, c);
        }
        let alone = crate::run::is_alone();
        if !alone && part.is_message() && waits_for_room(file, fd) {
            let mut now = part;
            now.args[now.flags_at()] |= MSG_DONTWAIT;
            let r = visible(l, fd, &now);
            if r != -EAGAIN {
                break r;
            }
            drop(guard);
            if let Err(e) = poll::wait_a_moment(l) {
                break e;
            }
            continue;
        }
        if !alone && waits_for_room(file, fd) {
            let is_pipe = descriptor::open_file(file).kind == Kind::Pipe;
            let tries = core::mem::replace(&mut has_rest, false) && is_pipe;
            if !tries && !poll::ready_now(fd, poll::POLLOUT) {
                drop(guard);
                match poll::wait_for(l, fd, poll::POLLOUT) {
                    Ok(()) => continue,
                    Err(e) => break e,
                }
            }
            part.at_once = matches!(part.nr, nr::WRITE | nr::WRITEV);
        }
        if done > 0 && engine().log.replay.is_active() && !replay::has_next(record::OUTPUT) {
            // It went no further.
            event::non_deterministic(l);
            break 0;
        }
        let r = visible(l, fd, &part);
        if r == -EAGAIN && part.at_once {
            continue;
        }
        if failed(r) || r == 0 || (done == 0 && r as usize == c.len) {
            break r;
        }
        let out = done + r as usize;
        state().threads[l.slot as usize].moved_bytes = out;
        if out >= c.len || thread::signal_waits(l) || !goes_on(c, file, fd) {
            break r;
        }
        thread::wait_on(l);
        if event::takes_tick_in_wait(l) {
            commit::commit(l);
        }
    };
    match core::mem::take(&mut state().threads[l.slot as usize].moved_bytes) {
        0 => last,
        out => {
            l.early = false;
            out as isize
        }
    }
}

impl Call {
    /// Which argument of a message its flags are.
    pub fn flags_at(&self) -> usize {
        match self.nr {
            nr::SENDTO => 3,
            _ => 2,
        }
    }
}

/// Whether a write of which a part is out makes the rest.
pub fn goes_on(c: &Call, file: u32, fd: i32) -> bool {
    matches!(c.nr, nr::WRITE | nr::WRITEV) && !c.at_once && waits_for_room(file, fd)
}

/// Whether a write waits until all of it is out.
fn waits_for_room(file: u32, fd: i32) -> bool {
    let f = descriptor::open_file(file);
    f.flags as usize & descriptor::O_NONBLOCK == 0
        && match f.kind {
            Kind::Pipe | Kind::Tty => true,
            Kind::Socket => !socket::times_out(fd, socket::SO_SNDTIMEO),
            _ => false,
        }
}

fn raw(_l: &mut Local, c: &Call) -> isize {
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(c.nr, c.args) };
    if r > 0 {
        fatal::count_written(r as usize);
    }
    r
}

fn visible(l: &mut Local, fd: i32, c: &Call) -> isize {
    let sum = contents_sum(c);
    let slot = l.slot;
    let own_pipe = record::own_pipe(fd);
    if own_pipe != 0 && engine().log.replay.makes_own_pipes_again() {
        touch(fd);
        return raw(l, c);
    }
    if engine().log.replay.is_active() {
        return replay::output(l, fd, sum);
    }
    if let Some(ret) = engine().replay.take(slot, fd, sum, c.len as u64) {
        count_message(l, c);
        if !engine().replay.is_active() {
            event::caught_up(l);
        }
        return ret;
    }
    event::visible(l);
    // Behind the commit, which saves what is in a pipe that was touched.
    touch(fd);
    let e = engine();
    let live = e.live();
    let before = match c.is_message() {
        true => e.journal.tail() as u64 | MESSAGE_MARK,
        false => crate::run::me().wchar.load(Relaxed),
    };
    crate::run::flies();
    let flight = &live.output;
    flight.fd.store(fd as u32, Relaxed);
    flight.len.store(c.len as u64, Relaxed);
    flight.before.store(before, Relaxed);
    flight.thread.store(slot | own_pipe, Relaxed);
    flight.sum.store(sum, Relaxed);
    let typed = pty::typed::is_typed_next(fd, c);
    let mut witnessed = witness::prepare(fd, c);
    let mut broken_off = false;
    flight.begin(engine().slot);
    let r = loop {
        let done = match witnessed {
            true => witness::write(fd, c),
            false => None,
        };
        witnessed = done.is_some();
        let r = done.unwrap_or_else(|| match c.quiet {
            true => socket::without_signal(|| made(c)),
            false => made(c),
        });
        if r == -EINTR && !thread::signal_waits(l) {
            thread::wait_on(l);
            // A tick waits for the end of this; it alone can be the reason, under
            // the lock.
            l.attention.fetch_and(!ATTENTION_STOP, SeqCst);
            broken_off = true;
            continue;
        }
        break r;
    };
    ends::met(r);
    if broken_off {
        event::caught_up(l);
    }
    if r == -EINTR {
        thread::broken_off(l, fd, poll::POLLOUT);
        if l.early {
            if let Some(at) = typed {
                pty::typed::was_typed(at, 0);
            }
            flight.end();
            return r;
        }
    }
    fault_point(fault::AFTER_VISIBLE);
    if let Some(at) = typed {
        pty::typed::was_typed(at, r);
    }
    if !failed(r) {
        let head = IoHead {
            fd,
            thread: slot | own_pipe,
            mark: record::mark(before),
            ret: r as u64,
            sum,
        };
        record::append(record::OUTPUT, &[record::bytes_of(&head)]);
        if c.is_message() {
            count_message(l, c);
        } else {
            fatal::count_written(r as usize);
        }
        crate::log::output_recorded();
        socket::waiting::sent(fd, c, r as usize);
    }
    flight.end();
    if super::socket::is_socket(fd) {
        event::count_message(nr::WRITE, r);
    }
    if r == -EPIPE && !c.quiet {
        // A signal comes with it, which no log gives back.
        event::unloggable(l);
    } else if failed(r) {
        // Why the kernel did not take it is chance.
        event::non_deterministic(l);
    } else if r as usize != c.len && engine().log.wanted {
        // And so is how much, which the record says already.
        event::input(l, size_of::<IoHead>());
    } else if r as usize != c.len {
        event::non_deterministic(l);
    }
    r
}

/// In the mark of a message, which is told by its place in the journal: no count of
/// bytes is so high.
pub const MESSAGE_MARK: u64 = 1 << 43;

/// How many messages of a call are out is state.
fn count_message(l: &Local, c: &Call) {
    if c.counted {
        state().threads[l.slot as usize].messages_sent += 1;
    }
}

fn touch(fd: i32) {
    if let Some(file) = descriptor::known_file(fd) {
        super::pipe::touch(file);
    }
}

/// The call itself.
fn made(c: &Call) -> isize {
    // SAFETY: the program's own call with its own arguments.
    let whole = |c: Call| unsafe { entry::interruptible(c.nr, &c.args) };
    if !c.at_once {
        return whole(*c);
    }
    if pty::entry_of(c.args[0] as i32).is_some() {
        return pty::without_waiting(c.args[0] as i32, || whole(*c));
    }
    const AT_THE_END: usize = usize::MAX;
    const RWF_NOWAIT: usize = 8;
    let [fd, at, len, ..] = c.args;
    let buffer = [at, len];
    let (parts, count) = match c.nr {
        nr::WRITE => (buffer.as_ptr() as usize, 1),
        _ => (at, len),
    };
    let args = [fd, parts, count, AT_THE_END, AT_THE_END, RWF_NOWAIT];
    // SAFETY: as above; the one buffer lives as long as the call.
    let r = unsafe { entry::interruptible(nr::PWRITEV2, &args) };
    if r != -EOPNOTSUPP {
        return r;
    }
    // No socket or pipe(2), or an older kernel. A pipe that is ready has room for so
    // much; messages are not to be cut.
    const PIPE_BUF: usize = 4096;
    whole(match socket::is_socket(fd as i32) || c.len <= PIPE_BUF {
        true => *c,
        false => c.beginning(PIPE_BUF),
    })
}

/// Tells one output from another after a crash.
pub fn contents_sum(c: &Call) -> u64 {
    let mut buf = [0u8; 256];
    let (addr, len) = match c.nr {
        nr::WRITE | nr::PWRITE64 | nr::SENDTO => (c.args[1], c.args[2]),
        nr::SENDMSG => match first_part(c.args[1]) {
            Some(part) => part,
            None => return c.len as u64,
        },
        _ => match user::read::<[usize; 2]>(c.args[1]) {
            Some(v) => (v[0], v[1]),
            None => return 0,
        },
    };
    let n = len.min(buf.len());
    if user::read_bytes(addr, &mut buf[..n]) {
        checksum(&buf[..n]) ^ (c.len as u64) << 20
    } else {
        0
    }
}

/// The first buffer of a `struct msghdr`.
fn first_part(header: usize) -> Option<(usize, usize)> {
    let parts = user::read::<[usize; 3]>(header)?[2];
    user::read::<[usize; 2]>(parts).map(|v| (v[0], v[1]))
}

/// At recovery: a call under way at the crash counts if the kernel noted it
/// ([`witness`]) or counted it. If neither, it is made again.
pub fn settle(dead_wchar: Option<u64>, warm: bool) {
    let e = engine();
    let flight = &e.live().output;
    if !flight.is_under_way() || !crate::run::is_in_flight() {
        return;
    }
    if flight.fd.load(Relaxed) as i32 == process::SIGNAL {
        flight.end();
        if e.journal.tail() as u64 | MESSAGE_MARK == flight.before.load(Relaxed) {
            crate::say!("a signal to another process may be sent twice: it died while it sent one");
        }
        return;
    }
    if pty::printed::settle(flight, dead_wchar, false, warm) {
        return;
    }
    let before = flight.before.load(Relaxed);
    let message = before & MESSAGE_MARK != 0;
    let recorded = match message {
        true => e.journal.tail() as u64 | MESSAGE_MARK != before,
        false => last_mark(record::OUTPUT) == Some(record::mark(before)),
    };
    let counted = || dead_wchar.map_or(0, |count| count.saturating_sub(before));
    let done = match witness::told() {
        Some(done) => done,
        None => Some(counted()).filter(|&n| n > 0),
    };
    if warm {
        pty::typed::settle(done.unwrap_or(0));
        pty::wait_again(flight.fd.load(Relaxed) as i32);
    }
    if !recorded && let Some(done) = done {
        let head = IoHead {
            fd: flight.fd.load(Relaxed) as i32,
            thread: flight.thread.load(Relaxed),
            mark: record::mark(before),
            ret: done.min(flight.len.load(Relaxed)),
            sum: flight.sum.load(Relaxed),
        };
        record::append(record::OUTPUT, &[record::bytes_of(&head)]);
    }
    flight.end();
}

/// The mark of the last record of a kind. One of no bytes has left the count,
/// and so the mark, to the call behind it.
pub fn last_mark(kind: u32) -> Option<u64> {
    record::own(0)
        .filter(|r| r.kind == kind)
        .filter_map(|r| record::value_of::<IoHead>(r.payload))
        .filter(|head| head.ret > 0 && head.mark & MESSAGE_MARK == 0)
        .last()
        .map(|head| head.mark)
}
