//! What a server sends to a client: responses, reports of fragments, and questions when it is time.

use super::client::{Client, Served, header, is_done};
use super::commit::Written;
use super::timer::{Nanos, Timer, nanos};
use super::{Body, ClientKey, Context, Port, Send};
use crate::Plant;
use crate::fragment::Outgoing;
use crate::packet::{Have, Header, Kind, RESENT, Welcome};
use crate::sum::Part;

impl Client {
    pub(super) fn started(&mut self, cx: &mut Context<'_>, moved: bool, delay: Nanos) {
        self.greet = moved;
        if moved || self.owes() {
            self.ping_due = cx.now
                + delay
                + if moved {
                    0
                } else {
                    nanos(cx.settings.ping_first)
                };
            self.arm(cx, self.ping_due);
        }
    }

    /// Whether slots are kept that the client could free by a word.
    fn owes(&self) -> bool {
        let kept = self.slots.from(self.low..);
        kept.map(|(_, served)| served)
            .any(|served| matches!(served, Served::Responded { .. } | Served::Done))
    }

    /// The client tells which fragments of a response have arrived.
    pub(super) fn have(&mut self, header: &Header, have: &Have, port: Port, cx: &mut Context<'_>) {
        let seq = header.seq;
        // Of a settled one the block may hold another response already.
        if seq < self.low || is_done(seq, self.low, self.done) {
            return;
        }
        let Some(Served::Responded { outgoing, .. }) = self.slots.get_mut(seq) else {
            return;
        };
        let mut fragments = Vec::new();
        match header.flags & RESENT {
            0 => outgoing.heard(have, |offset, len| fragments.push((offset, len))),
            _ => outgoing.asked(have, |offset, len| fragments.push((offset, len))),
        }
        self.send_fragments(seq, &fragments, None, port, false, cx);
    }

    /// A response was committed.
    pub(super) fn responded(&mut self, written: &Written<ClientKey>, cx: &mut Context<'_>) {
        let &Written {
            seq, at, len, part, ..
        } = written;
        let outgoing = Outgoing::new(len, cx.settings.piece());
        let served = Served::Responded { at, len, outgoing };
        self.slots.insert(seq, served);
        self.send_more(seq, part, Port::Main, false, cx);
        if cx.settings.plant == Some(Plant::FreedWhenSent) {
            self.low = self.low.max(seq + 1);
        }
        if self.ping_due == u64::MAX {
            self.ping_due = cx.now + nanos(cx.settings.ping_first);
            self.arm(cx, self.ping_due);
        }
    }

    pub(super) fn send_more(
        &mut self,
        seq: u64,
        part: Option<Part>,
        port: Port,
        again: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(Served::Responded { outgoing, len, .. }) = self.slots.get_mut(seq) else {
            return;
        };
        if outgoing.is_single() {
            let fragment = [(0, *len)];
            return self.send_fragments(seq, &fragment, part, port, again, cx);
        }
        let mut fragments = Vec::new();
        outgoing.go_on(|offset, len| fragments.push((offset, len)));
        self.send_fragments(seq, &fragments, None, port, again, cx);
    }

    fn send_fragments(
        &self,
        seq: u64,
        fragments: &[(u32, u32)],
        part: Option<Part>,
        port: Port,
        again: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(Served::Responded { at, len, outgoing }) = self.slots.get(seq) else {
            return;
        };
        let header = Header {
            seq,
            message_len: *len,
            piece: outgoing.piece(),
            flags: if again { RESENT } else { 0 },
            ..self.header(Kind::Response, cx)
        };
        for &(offset, len) in fragments {
            let at = at.plus(offset as usize);
            let header = Header { offset, ..header };
            self.send(header, Body::Stored { at, len, part }, port, cx);
        }
    }

    pub(super) fn report(&self, seq: u64, have: &Have, port: Port, cx: &mut Context<'_>) {
        let header = Header {
            seq,
            ..self.header(Kind::HaveRequest, cx)
        };
        self.send(header, Body::Made(have.to_bytes()), port, cx);
    }

    fn header(&self, kind: Kind, cx: &Context<'_>) -> Header {
        Header {
            stream: self.stream,
            cookie: cx.resend_port.into(),
            ..header(kind, self.key)
        }
    }

    fn send(&self, header: Header, body: Body, from: Port, cx: &mut Context<'_>) {
        cx.counters.packets_out += 1;
        cx.out.push(Send {
            to: self.address,
            from,
            header,
            body,
        });
    }

    /// A wake-up has come; the one that counts was armed for this time.
    pub(super) fn wake(&mut self, due: Nanos, about: &Welcome, cx: &mut Context<'_>) {
        if self.armed != Some(due) {
            return;
        }
        self.armed = None;
        if !self.greet && !self.owes() {
            self.ping_due = u64::MAX;
            return;
        }
        if self.ping_due <= cx.now {
            let header = self.header(Kind::Ping, cx);
            self.send(header, Body::Made(about.to_bytes()), Port::Main, cx);
            let first = nanos(cx.settings.ping_first);
            let wait = (first << self.ping_tries.min(16)).min(nanos(cx.settings.ping_most));
            self.ping_tries += 1;
            self.ping_due = cx.now + cx.random.jittered(wait);
        }
        self.arm(cx, self.ping_due);
    }

    fn arm(&mut self, cx: &mut Context<'_>, at: Nanos) {
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            cx.timers.push(at, Timer::Client(self.key));
        }
    }
}
