//! What time makes a client's half do: greet, send again, acknowledge.
//!
//! A request is sent again until its response is there, at twice the distance each time; in the end
//! seldom, and for ever: there is no time after which a committed message is given up. Of a request
//! that has arrived one fragment asks for the response as well as all would.

use super::link::{Answer, Link};
use super::timer::{Nanos, Timer, nanos};
use super::{Body, Context};
use crate::packet::{Kind, RESENT};

/// Of many due requests so many are sent again at once.
const AGAIN_AT_ONCE: usize = 32;

impl Link {
    /// A wake-up has come; the one that counts was armed for this time.
    pub(super) fn wake(&mut self, number: u32, due: Nanos, cx: &mut Context<'_>) {
        debug_assert_eq!(number, self.number);
        if self.armed != Some(due) {
            return;
        }
        self.armed = None;
        if self.wants_stream() && self.hello_due <= cx.now {
            let header = self.header(cx.node, Kind::Hello, 0);
            self.send(header, Body::Nothing, false, cx);
            let wait = self.wait(self.hello_tries, cx);
            self.hello_due = cx.now + cx.random.jittered(wait);
            self.hello_tries += 1;
        }
        if self.stream != 0 && self.replaced.is_none() {
            let late = self
                .pending
                .iter()
                .filter(|(_, pending)| pending.due <= cx.now);
            let late: Vec<u64> = late.map(|(seq, _)| seq).take(AGAIN_AT_ONCE).collect();
            for seq in late {
                self.again(seq, cx);
            }
        }
        if self.stream != 0 && self.ack_due.is_some_and(|due| due <= cx.now) {
            self.ack_now(cx);
        }
        self.arm_next(cx);
    }

    /// Nothing was heard of a request for a while.
    fn again(&mut self, seq: u64, cx: &mut Context<'_>) {
        let Some(pending) = self.pending.get_mut(seq) else {
            return;
        };
        pending.tries += 1;
        let (tries, arrived) = (pending.tries, pending.arrived);
        let mut fragments = Vec::new();
        let report = match &pending.answer {
            Answer::Arriving(assembly) => Some(assembly.report()),
            _ if arrived || pending.outgoing.is_single() => {
                // The first fragment asks for the response as well as all of them would.
                fragments.push((0, pending.len.min(pending.outgoing.piece())));
                None
            }
            _ => {
                pending
                    .outgoing
                    .again(|offset, len| fragments.push((offset, len)));
                None
            }
        };
        let wait = self.wait(tries, cx);
        let due = cx.now + cx.random.jittered(wait);
        if let Some(pending) = self.pending.get_mut(seq) {
            pending.due = due;
        }
        cx.counters.resent += 1;
        match report {
            Some(have) => self.report(seq, &have, RESENT, cx),
            None => self.send_fragments(seq, &fragments, None, true, cx),
        }
    }

    pub(super) fn wait(&self, tries: u32, cx: &Context<'_>) -> Nanos {
        let settings = cx.settings;
        self.round_trip.wait(
            tries,
            nanos(settings.resend_first),
            nanos(settings.resend_least),
            nanos(settings.resend_most),
        )
    }

    pub(super) fn arm_next(&mut self, cx: &mut Context<'_>) {
        let mut next = u64::MAX;
        if self.wants_stream() {
            next = self.hello_due;
        } else if self.stream != 0 {
            next = self.ack_due.unwrap_or(u64::MAX);
            if self.replaced.is_none() {
                let due = self.pending.values().map(|pending| pending.due);
                next = due.fold(next, u64::min);
            }
        }
        if next != u64::MAX {
            self.arm(cx, next.max(cx.now + 1));
        }
    }

    pub(super) fn arm(&mut self, cx: &mut Context<'_>, at: Nanos) {
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            cx.timers.push(at, Timer::Link(self.number));
        }
    }
}
