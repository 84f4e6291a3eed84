//! The client's half: requests that were committed, until a commit has received their responses.
//! What time makes it do is in [`super::resend`].
//!
//! A request is sent when it is committed and sent again until it is settled. What has arrived of
//! its response is kept in ordinary memory: the server keeps it too, until this side acknowledges,
//! which it does for what a commit has received and never before. An acknowledgement is `low` and
//! `done` of any packet, and is repeated by every later one.

use std::net::SocketAddr;

use rio_core::At;
use vista::Ptr;

use super::Context;
use super::commit::Written;
use super::seqs::Seqs;
use super::timer::{Nanos, RoundTrip, nanos};
use crate::fragment::{Added, Assembly, Outgoing};
use crate::landing::Payload;
use crate::message::Message;
use crate::packet::{Header, Kind, RESENT, Welcome};
use crate::tables::LinkRow;
use crate::{NodeId, Plant};

#[derive(Clone)]
pub struct Link {
    pub row: Ptr<LinkRow>,
    pub(super) number: u32,
    pub address: SocketAddr,
    /// Who answered first; requests are meant for that installation.
    pub server: Option<NodeId>,
    pub server_boots: u64,
    /// Another installation that answers in its place.
    pub replaced: Option<NodeId>,
    /// The row in the table says less than this does.
    pub row_lags: bool,
    pub(super) stream: u64,
    /// What the stream was granted with. Without a stream, the number of this start: the late
    /// answer to a former one must not be taken for one's own.
    pub(super) cookie: u64,
    pub(super) boots: u64,
    pub(super) resend_port: u16,
    /// What the server says it can hold; before it was asked, anything.
    pub window: u32,
    pub next_seq: u64,
    pub(super) pending: Seqs<Pending>,
    pub(super) hello_due: Nanos,
    pub(super) hello_tries: u32,
    pub(super) ack_due: Option<Nanos>,
    pub(super) round_trip: RoundTrip,
    pub(super) armed: Option<Nanos>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pending {
    pub(super) at: At,
    pub(super) len: u32,
    pub(super) outgoing: Outgoing,
    /// The server has all of it.
    pub(super) arrived: bool,
    pub(super) answer: Answer,
    pub(super) sent: Nanos,
    pub(super) due: Nanos,
    pub(super) tries: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Answer {
    None,
    Arriving(Assembly),
    Whole(Message),
}

impl Link {
    pub fn new(row_at: Ptr<LinkRow>, row: &LinkRow, boots: u64) -> Link {
        let server = NodeId(row.server);
        Link {
            row: row_at,
            number: row.number as u32,
            address: row.address.into(),
            server: (!server.is_none()).then_some(server),
            server_boots: row.server_boots,
            replaced: None,
            row_lags: false,
            stream: 0,
            cookie: boots,
            boots,
            resend_port: 0,
            window: u32::MAX,
            next_seq: row.next_seq,
            pending: Seqs::default(),
            hello_due: 0,
            hello_tries: 0,
            ack_due: None,
            round_trip: RoundTrip::default(),
            armed: None,
        }
    }

    /// A request that a former start has committed.
    pub fn reload(&mut self, seq: u64, at: At, len: u32, piece: u32, now: Nanos) {
        self.pending.insert(seq, Pending::new(at, len, piece, now));
    }

    pub fn unsettled(&self) -> usize {
        self.pending.len()
    }

    /// Numbers from the first that is unsettled to the next that will be used.
    pub fn reach(&self) -> u64 {
        self.next_seq - self.low()
    }

    pub fn is_unsettled(&self, seq: u64) -> bool {
        self.pending.contains(seq)
    }

    pub fn unsettled_seqs(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|(seq, _)| seq)
    }

    /// The response, if it is there.
    pub fn answer(&self, seq: u64) -> Option<&Message> {
        match self.pending.get(seq)?.answer {
            Answer::Whole(ref bytes) => Some(bytes),
            _ => None,
        }
    }

    /// All requests below are settled.
    pub(super) fn low(&self) -> u64 {
        self.pending.first().unwrap_or(self.next_seq)
    }

    /// Of the 64 requests after `low` those that are settled.
    pub(super) fn done(&self, low: u64) -> u64 {
        let count = self.next_seq.saturating_sub(low + 1).min(64);
        let all = if count == 64 {
            u64::MAX
        } else {
            (1 << count) - 1
        };
        let unsettled = self.pending.from(low + 1..);
        let near = unsettled.take_while(|(seq, _)| *seq < low + 65);
        near.fold(all, |done, (seq, _)| done & !(1 << (seq - low - 1)))
    }

    /// A request was committed.
    pub(super) fn committed(&mut self, written: &Written<u32>, cx: &mut Context<'_>) {
        let &Written {
            seq, at, len, part, ..
        } = written;
        let piece = cx.settings.piece();
        let mut pending = Pending::new(at, len, piece, cx.now);
        self.next_seq = self.next_seq.max(seq + 1);
        let wait = self.wait(0, cx);
        pending.due = cx.now + wait;
        self.pending.insert(seq, pending);
        let due = match self.stream {
            0 if self.replaced.is_some() => return,
            0 => self.hello_due.max(cx.now),
            _ => {
                self.send_more(seq, part, cx);
                cx.now + wait
            }
        };
        self.arm(cx, due);
    }

    /// A response was received by a commit, or its request was abandoned.
    pub(super) fn settled(&mut self, seq: u64, cx: &mut Context<'_>) {
        let Some(pending) = self.pending.remove(seq) else {
            return;
        };
        if let Answer::Arriving(assembly) = pending.answer {
            *cx.assembly_bytes -= assembly.memory().min(*cx.assembly_bytes);
        }
        self.owe_ack(nanos(cx.settings.ack_delay), cx);
    }

    /// The program is shown the response; the planted fault acknowledges it already.
    pub(super) fn taken(&mut self, seq: u64, cx: &mut Context<'_>) {
        if cx.settings.plant == Some(Plant::AcknowledgedEarly) {
            self.settled(seq, cx);
        }
    }

    /// Without a stream, as after a start, one is asked for first.
    fn owe_ack(&mut self, wait: Nanos, cx: &mut Context<'_>) {
        let due = self.ack_due.unwrap_or(u64::MAX).min(cx.now + wait);
        self.ack_due = Some(due);
        match self.stream != 0 && wait == 0 {
            true => self.ack_now(cx),
            false => self.arm(cx, due),
        }
    }

    pub(super) fn wants_stream(&self) -> bool {
        self.stream == 0 && (!self.pending.is_empty() || self.ack_due.is_some())
    }

    /// A packet of the server, whose client we are.
    pub(super) fn packet(
        &mut self,
        from: SocketAddr,
        header: &Header,
        payload: Payload<'_>,
        cx: &mut Context<'_>,
    ) {
        let stale = match header.kind {
            Kind::Welcome => Welcome::parse(payload.bytes()).is_none_or(|welcome| {
                let asked = (welcome.was, welcome.answers) == (self.stream, self.cookie);
                let fits = asked && header.stream > self.stream;
                if fits {
                    self.welcomed(header, &welcome, cx);
                }
                !fits
            }),
            Kind::Ping => Welcome::parse(payload.bytes()).is_none_or(|about| {
                let known = match self.server {
                    Some(server) => server == about.server,
                    None => from == self.address,
                };
                let fits = known && about.boots >= self.server_boots;
                if fits {
                    self.pinged(from, &about, cx);
                }
                !fits
            }),
            _ => header.stream != self.stream || self.stream == 0,
        };
        if stale {
            cx.counters.rejected += 1;
            return;
        }
        self.resend_port = header.cookie as u16;
        match header.kind {
            Kind::Response => self.response(header, payload, cx),
            Kind::HaveRequest => self.have(header, payload, cx),
            _ => {}
        }
    }

    fn welcomed(&mut self, header: &Header, welcome: &Welcome, cx: &mut Context<'_>) {
        if self.server.is_some_and(|server| server != welcome.server) {
            self.replaced = Some(welcome.server);
            return;
        }
        self.row_lags |= self.server.is_none() || self.server_boots < welcome.boots;
        self.server = Some(welcome.server);
        self.server_boots = welcome.boots.max(self.server_boots);
        self.replaced = None;
        self.stream = header.stream;
        self.cookie = welcome.cookie;
        self.window = welcome.window.max(1);
        self.hello_tries = 0;
        let seqs: Vec<u64> = self.unsettled_seqs().collect();
        for seq in seqs {
            let wait = self.wait(0, cx);
            if let Some(pending) = self.pending.get_mut(seq) {
                pending.outgoing = Outgoing::new(pending.len, pending.outgoing.piece());
                (pending.sent, pending.due, pending.tries) = (cx.now, cx.now + wait, 1);
            }
            self.send_more(seq, None, cx);
        }
        self.arm_next(cx);
    }

    /// The server tells where it is, and asks what is settled.
    fn pinged(&mut self, from: SocketAddr, about: &Welcome, cx: &mut Context<'_>) {
        self.row_lags |= self.address != from || self.server_boots != about.boots;
        if self.address != from {
            self.address = from;
            self.hello_due = cx.now;
            for pending in self.pending.values_mut() {
                (pending.due, pending.tries) = (cx.now, 0);
            }
            self.arm(cx, cx.now);
        }
        self.server_boots = about.boots;
        self.owe_ack(0, cx);
    }

    /// The link is forgotten, and with its last word the server's memory of it.
    pub(super) fn closed(&mut self, cx: &mut Context<'_>) {
        if self.stream != 0 {
            self.ack_now(cx);
        }
    }

    fn response(&mut self, header: &Header, payload: Payload<'_>, cx: &mut Context<'_>) {
        let seq = header.seq;
        let Some(pending) = self.pending.get_mut(seq) else {
            cx.counters.duplicates += 1;
            if seq < self.next_seq && header.flags & RESENT != 0 {
                self.ack_now(cx);
            }
            return;
        };
        pending.arrived = true;
        let single = header.piece >= header.message_len;
        let added = match &mut pending.answer {
            Answer::Whole(_) => Added::Known,
            Answer::None if single => {
                pending.answer = Answer::Whole(payload.keep());
                Added::Whole
            }
            Answer::None
                if *cx.assembly_bytes + header.message_len as usize
                    > cx.settings.assembly_bytes =>
            {
                cx.counters.no_room += 1;
                return;
            }
            Answer::None => {
                let mut assembly = Assembly::new(header.message_len, header.piece);
                *cx.assembly_bytes += assembly.memory();
                let (len, piece) = (header.message_len, header.piece);
                let added = assembly.add(len, piece, header.offset, payload.bytes());
                pending.answer = Answer::Arriving(assembly);
                added
            }
            Answer::Arriving(assembly) => {
                let (len, piece) = (header.message_len, header.piece);
                assembly.add(len, piece, header.offset, payload.bytes())
            }
        };
        match added {
            Added::Known => cx.counters.duplicates += 1,
            Added::New => {}
            Added::Whole => {
                if pending.tries == 0 {
                    self.round_trip.measured(cx.now - pending.sent);
                }
                let old = std::mem::replace(&mut pending.answer, Answer::None);
                pending.answer = match old {
                    Answer::Arriving(assembly) => {
                        *cx.assembly_bytes -= assembly.memory().min(*cx.assembly_bytes);
                        Answer::Whole(assembly.into_bytes().into())
                    }
                    other => other,
                };
                pending.due = u64::MAX;
                return;
            }
        }
        if let Answer::Arriving(assembly) = &pending.answer {
            let report = added == Added::Known || assembly.is_time_to_report();
            let have = assembly.report();
            let tries = std::mem::take(&mut pending.tries).min(1);
            pending.tries = tries;
            pending.due = cx.now + nanos(cx.settings.resend_first);
            if report {
                self.report(seq, &have, 0, cx);
            }
            self.arm_next(cx);
        }
    }

    /// The program says where the server is now.
    pub(super) fn moved(&mut self, address: SocketAddr, cx: &mut Context<'_>) {
        self.address = address;
        self.resend_port = 0;
        self.hello_due = cx.now;
        for pending in self.pending.values_mut() {
            if pending.due != u64::MAX {
                (pending.due, pending.tries) = (cx.now, 0);
            }
        }
        self.arm(cx, cx.now);
    }

    /// The program says that the installation that answers now is to have the requests.
    pub(super) fn accept_replacement(&mut self, cx: &mut Context<'_>) {
        if let Some(server) = self.replaced.take() {
            self.server = Some(server);
            self.server_boots = 0;
            (self.stream, self.cookie, self.hello_due) = (0, self.boots, cx.now);
            self.row_lags = true;
            self.arm(cx, cx.now);
        }
    }

    /// All that decides what it will do, times excepted.
    pub fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (
            self.number,
            self.address,
            self.server,
            self.server_boots,
            self.replaced,
        )
            .hash(hasher);
        (
            self.stream,
            self.cookie,
            self.next_seq,
            self.ack_due.is_some(),
        )
            .hash(hasher);
        for (seq, pending) in self.pending.iter() {
            (
                seq,
                pending.at,
                &pending.outgoing,
                pending.arrived,
                &pending.answer,
            )
                .hash(hasher);
            (pending.due == u64::MAX, pending.tries % 3).hash(hasher);
        }
    }
}

impl Pending {
    fn new(at: At, len: u32, piece: u32, now: Nanos) -> Pending {
        Pending {
            at,
            len,
            outgoing: Outgoing::new(len, piece),
            arrived: false,
            answer: Answer::None,
            sent: now,
            due: now,
            tries: 0,
        }
    }
}
