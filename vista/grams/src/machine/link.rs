//! The client's half: requests that were committed, until a commit has received their responses.
//!
//! A request is sent when it is committed and sent again until it is settled. What has arrived of
//! its response is kept in ordinary memory: the server keeps it too, until this side acknowledges,
//! which it does for what a commit has received and never before. An acknowledgement is `low` and
//! `done` of any packet, and is repeated by every later one.

use std::net::SocketAddr;
use std::sync::Arc;

use rio_core::At;
use vista::Ptr;

use super::seqs::Seqs;
use super::timer::{Nanos, RoundTrip, Timer, nanos};
use super::{Body, Context, Port, Send};
use crate::fragment::{Added, Assembly, Outgoing};
use crate::packet::{Have, Header, Kind, RESENT, Welcome};
use crate::tables::LinkRow;
use crate::{NodeId, Plant};

/// Of many due requests so many are sent again at once.
const AGAIN_AT_ONCE: usize = 32;

#[derive(Clone)]
pub struct Link {
    pub row: Ptr<LinkRow>,
    number: u32,
    pub address: SocketAddr,
    /// Who answered first; requests are meant for that installation.
    pub server: Option<NodeId>,
    pub server_boots: u64,
    /// Another installation that answers in its place.
    pub replaced: Option<NodeId>,
    /// The row in the table says less than this does.
    pub row_lags: bool,
    stream: u64,
    /// What the stream was granted with. Without a stream, the number of this start: the late
    /// answer to a former one must not be taken for one's own.
    cookie: u64,
    boots: u64,
    resend_port: u16,
    /// What the server says it can hold; before it was asked, anything.
    pub window: u32,
    pub next_seq: u64,
    pending: Seqs<Pending>,
    hello_due: Nanos,
    hello_tries: u32,
    ack_due: Option<Nanos>,
    round_trip: RoundTrip,
    armed: Option<Nanos>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pending {
    at: At,
    len: u32,
    outgoing: Outgoing,
    /// The server has all of it.
    arrived: bool,
    answer: Answer,
    sent: Nanos,
    due: Nanos,
    tries: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Answer {
    None,
    Arriving(Assembly),
    Whole(Arc<Vec<u8>>),
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

    pub fn is_unsettled(&self, seq: u64) -> bool {
        self.pending.contains(seq)
    }

    pub fn unsettled_seqs(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|(seq, _)| seq)
    }

    /// The response, if it is there.
    pub fn answer(&self, seq: u64) -> Option<&Arc<Vec<u8>>> {
        match self.pending.get(seq)?.answer {
            Answer::Whole(ref bytes) => Some(bytes),
            _ => None,
        }
    }

    /// All requests below are settled.
    fn low(&self) -> u64 {
        self.pending.first().unwrap_or(self.next_seq)
    }

    /// Of the 64 requests after `low` those that are settled.
    fn done(&self, low: u64) -> u64 {
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

    fn header(&self, client: NodeId, kind: Kind, seq: u64) -> Header {
        let low = self.low();
        Header {
            kind,
            flags: 0,
            client,
            link: self.number,
            message_len: 0,
            stream: self.stream,
            cookie: self.cookie,
            seq,
            low,
            done: self.done(low),
            offset: 0,
            piece: 0,
        }
    }

    /// A request was committed.
    pub(super) fn committed(&mut self, seq: u64, at: At, len: u32, cx: &mut Context<'_>) {
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
                self.send_more(seq, cx);
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

    fn wants_stream(&self) -> bool {
        self.stream == 0 && (!self.pending.is_empty() || self.ack_due.is_some())
    }

    /// A packet of the server, whose client we are.
    pub(super) fn packet(
        &mut self,
        from: SocketAddr,
        header: &Header,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) {
        let stale = match header.kind {
            Kind::Welcome => Welcome::parse(payload).is_none_or(|welcome| {
                let asked = (welcome.was, welcome.answers) == (self.stream, self.cookie);
                let fits = asked && header.stream > self.stream;
                if fits {
                    self.welcomed(header, &welcome, cx);
                }
                !fits
            }),
            Kind::Ping => Welcome::parse(payload).is_none_or(|about| {
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
            self.send_more(seq, cx);
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

    fn ack_now(&mut self, cx: &mut Context<'_>) {
        self.ack_due = None;
        let header = self.header(cx.node, Kind::Ack, 0);
        self.send(header, Body::Nothing, false, cx);
    }

    fn response(&mut self, header: &Header, payload: &[u8], cx: &mut Context<'_>) {
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
                pending.answer = Answer::Whole(Arc::new(payload.to_vec()));
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
                let added = assembly.add(header.message_len, header.piece, header.offset, payload);
                pending.answer = Answer::Arriving(assembly);
                added
            }
            Answer::Arriving(assembly) => {
                assembly.add(header.message_len, header.piece, header.offset, payload)
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
                        Answer::Whole(Arc::new(assembly.into_bytes()))
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

    fn report(&mut self, seq: u64, have: &Have, flags: u32, cx: &mut Context<'_>) {
        let header = Header {
            flags,
            ..self.header(cx.node, Kind::HaveResponse, seq)
        };
        self.send(header, Body::Made(have.to_bytes()), true, cx);
    }

    /// The server tells which fragments of a request have arrived.
    fn have(&mut self, header: &Header, payload: &[u8], cx: &mut Context<'_>) {
        let (Some(pending), Some(have)) = (self.pending.get_mut(header.seq), Have::parse(payload))
        else {
            return;
        };
        let count = crate::fragment::pieces(pending.len, pending.outgoing.piece());
        if have.first >= count {
            pending.arrived = true;
            return;
        }
        let mut fragments = Vec::new();
        pending
            .outgoing
            .heard(&have, |offset, len| fragments.push((offset, len)));
        pending.tries = pending.tries.min(1);
        self.send_fragments(header.seq, &fragments, false, cx);
    }

    /// Sends what may be sent of a request for the first time.
    fn send_more(&mut self, seq: u64, cx: &mut Context<'_>) {
        let Some(pending) = self.pending.get_mut(seq) else {
            return;
        };
        if pending.outgoing.is_single() {
            let fragment = [(0, pending.len)];
            return self.send_fragments(seq, &fragment, false, cx);
        }
        let mut fragments = Vec::new();
        pending
            .outgoing
            .go_on(|offset, len| fragments.push((offset, len)));
        self.send_fragments(seq, &fragments, false, cx);
    }

    fn send_fragments(
        &mut self,
        seq: u64,
        fragments: &[(u32, u32)],
        again: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(pending) = self.pending.get(seq) else {
            return;
        };
        let (at, message_len, piece) = (pending.at, pending.len, pending.outgoing.piece());
        let resend = again && !pending.tries.is_multiple_of(3);
        self.ack_due = None;
        let header = self.header(cx.node, Kind::Request, seq);
        for &(offset, len) in fragments {
            let header = Header {
                message_len,
                piece,
                offset,
                flags: if again { RESENT } else { 0 },
                ..header
            };
            let at = at.plus(offset as usize);
            self.send(header, Body::Stored { at, len }, resend, cx);
        }
    }

    /// To the server's port for retransmissions, if it has told one.
    fn send(&self, header: Header, body: Body, resend: bool, cx: &mut Context<'_>) {
        let mut to = self.address;
        if resend && self.resend_port != 0 {
            to.set_port(self.resend_port);
        }
        cx.counters.packets_out += 1;
        cx.out.push(Send {
            to,
            from: Port::Main,
            header,
            body,
        });
    }

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
            None => self.send_fragments(seq, &fragments, true, cx),
        }
    }

    fn wait(&self, tries: u32, cx: &Context<'_>) -> Nanos {
        let settings = cx.settings;
        self.round_trip.wait(
            tries,
            nanos(settings.resend_first),
            nanos(settings.resend_least),
            nanos(settings.resend_most),
        )
    }

    fn arm_next(&mut self, cx: &mut Context<'_>) {
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
