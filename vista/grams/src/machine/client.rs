//! The server's half: what was received of a client's link, until the client has settled it.
//!
//! Requests below the floor are settled and never received again; of those above, each has a state
//! that says why it is not received twice. A response is sent when it is committed, and again when
//! its request comes again. What a client has settled is noted here at once and written to the
//! tables by the next commit: until then a start would know more requests than need be, which is
//! harmless.

use std::net::SocketAddr;

use rio_core::At;
use vista::Ptr;

use super::commit::Settlement;
use super::seqs::Seqs;
use super::timer::Nanos;
use super::{ClientKey, Context, Port};
use crate::fragment::{Added, Assembly, Outgoing};
use crate::landing::Payload;
use crate::message::Message;
use crate::packet::{Have, Header, Kind};
use crate::tables::{self, ClientRow, Slot};
use crate::{NodeId, Plant};

#[derive(Clone)]
pub struct Client {
    pub key: ClientKey,
    /// None before a request of it was received.
    pub row: Option<Ptr<ClientRow>>,
    pub stream: u64,
    pub address: SocketAddr,
    /// What the row says.
    pub floor: u64,
    row_stream: u64,
    row_address: SocketAddr,
    /// It is in the machine's list of those whose rows lag.
    listed: bool,
    /// What the client says: all below are settled, and of those above these.
    pub low: u64,
    pub done: u64,
    pub slots: Seqs<Served>,
    pub heard: Nanos,
    /// It was not heard of since this start, at an address that clients may not know.
    pub(super) greet: bool,
    pub(super) ping_due: Nanos,
    pub(super) ping_tries: u32,
    pub(super) armed: Option<Nanos>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Served {
    Arriving(Assembly),
    /// In the inbox, or in the hands of a transaction that is open.
    Arrived,
    /// By a commit, which did not answer.
    Received,
    Responded {
        at: At,
        len: u32,
        outgoing: Outgoing,
    },
    /// Settled, above the floor.
    Done,
}

impl Client {
    pub fn fresh(key: ClientKey, stream: u64, address: SocketAddr, now: Nanos) -> Client {
        Client {
            key,
            row: None,
            stream,
            address,
            floor: 0,
            row_stream: stream,
            row_address: address,
            listed: false,
            low: 0,
            done: 0,
            slots: Seqs::default(),
            heard: now,
            greet: false,
            ping_due: u64::MAX,
            ping_tries: 0,
            armed: None,
        }
    }

    pub fn loaded(key: ClientKey, at: Ptr<ClientRow>, row: &ClientRow, now: Nanos) -> Client {
        Client {
            row: Some(at),
            floor: row.floor,
            low: row.floor,
            ..Client::fresh(key, row.stream, row.address.into(), now)
        }
    }

    pub fn reload(&mut self, slot: &Slot, piece: u32) {
        let served = match slot.state {
            tables::RECEIVED => Served::Received,
            tables::RESPONDED => Served::Responded {
                at: slot.message_at(),
                len: slot.len,
                outgoing: Outgoing::new(slot.len, piece),
            },
            _ => Served::Done,
        };
        self.slots.insert(slot.seq, served);
    }

    /// Whether the row in the table must be written.
    pub fn lags(&self) -> bool {
        self.row.is_some()
            && (self.low != self.floor
                || self.stream != self.row_stream
                || self.address != self.row_address
                || self.done != 0 && self.settled().next().is_some())
    }

    /// Whether it is to be put into the list of those whose rows lag.
    pub(super) fn list_if_lagging(&mut self) -> bool {
        let list = !self.listed && self.lags();
        self.listed |= list;
        list
    }

    pub(super) fn unlisted(&mut self) {
        self.listed = false;
    }

    /// Requests whose slots the client's word frees, and whether they are below the floor.
    pub fn settled(&self) -> impl Iterator<Item = (u64, bool)> {
        let (low, done) = (self.low, self.done);
        self.slots
            .iter()
            .filter_map(move |(seq, served)| match served {
                Served::Arriving(_) | Served::Arrived => None,
                _ if seq < low => Some((seq, true)),
                Served::Done => None,
                _ => is_done(seq, low, done).then_some((seq, false)),
            })
    }

    /// The first request whose slot is taken, now or by the next commit.
    fn first_unsettled(&self) -> u64 {
        let taken = |(seq, served): &(u64, &Served)| {
            *seq >= self.low || matches!(served, Served::Arriving(_) | Served::Arrived)
        };
        self.slots
            .iter()
            .find(taken)
            .map_or(u64::MAX, |(seq, _)| seq)
    }

    /// Whether it may be forgotten: nothing of it is unsettled.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && !self.greet
    }

    /// A packet of the client. A request that is whole is returned, to be received.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn packet(
        &mut self,
        window: u32,
        from: SocketAddr,
        port: Port,
        header: &Header,
        payload: Payload<'_>,
        room: bool,
        cx: &mut Context<'_>,
    ) -> Option<Message> {
        self.heard = cx.now;
        self.greet = false;
        self.address = from;
        self.ping_tries = 0;
        if header.low > self.low || header.low == self.low && header.done & !self.done != 0 {
            // Settled requests stay settled, so what is done within one `low` adds up.
            self.done = if header.low == self.low {
                self.done | header.done
            } else {
                header.done
            };
            self.low = header.low;
        }
        match header.kind {
            Kind::Request => self.request(window, port, header, payload, room, cx),
            Kind::HaveResponse => {
                if let Some(have) = Have::parse(payload.bytes()) {
                    self.have(header, &have, port, cx);
                }
                None
            }
            _ => None,
        }
    }

    fn request(
        &mut self,
        window: u32,
        port: Port,
        header: &Header,
        payload: Payload<'_>,
        room: bool,
        cx: &mut Context<'_>,
    ) -> Option<Message> {
        let seq = header.seq;
        let plant = cx.settings.plant;
        let late = seq < self.low || is_done(seq, self.low, self.done);
        if seq == 0 || late && plant != Some(Plant::FloorIgnored) {
            cx.counters.duplicates += 1;
            return None;
        }
        if seq >= self.first_unsettled().min(self.low.max(1)) + u64::from(window) {
            cx.counters.no_room += 1;
            return None;
        }
        match self.slots.get_mut(seq) {
            None if header.piece >= header.message_len => {
                if !room {
                    cx.counters.no_room += 1;
                    return None;
                }
                self.slots.insert(seq, Served::Arrived);
                Some(payload.keep())
            }
            None => {
                let assembly = Assembly::new(header.message_len, header.piece);
                *cx.assembly_bytes += assembly.memory();
                self.slots.insert(seq, Served::Arriving(assembly));
                self.fragment(port, header, payload, room, cx)
            }
            Some(Served::Arriving(_)) => self.fragment(port, header, payload, room, cx),
            Some(served) => {
                cx.counters.duplicates += 1;
                // One of the fragments stands for the request that comes again.
                if header.offset != 0 {
                    return None;
                }
                match served {
                    Served::Responded { outgoing, len, .. } => {
                        if plant == Some(Plant::AnsweredOnce) {
                            return None;
                        }
                        *outgoing = Outgoing::new(*len, outgoing.piece());
                        self.send_more(seq, None, port, true, cx);
                    }
                    _ => {
                        let count = crate::fragment::pieces(header.message_len, header.piece);
                        let all = Have {
                            first: count,
                            bits: Vec::new(),
                        };
                        self.report(seq, &all, port, cx);
                    }
                }
                None
            }
        }
    }

    fn fragment(
        &mut self,
        port: Port,
        header: &Header,
        payload: Payload<'_>,
        room: bool,
        cx: &mut Context<'_>,
    ) -> Option<Message> {
        let seq = header.seq;
        let Some(Served::Arriving(assembly)) = self.slots.get_mut(seq) else {
            return None;
        };
        let (len, piece, offset) = (header.message_len, header.piece, header.offset);
        let added = assembly.add(len, piece, offset, payload.bytes());
        if added == Added::Whole {
            let memory = assembly.memory();
            *cx.assembly_bytes -= memory.min(*cx.assembly_bytes);
            // Without room even a whole one must come again.
            let served = self.slots.remove(seq);
            if !room {
                cx.counters.no_room += 1;
                return None;
            }
            self.slots.insert(seq, Served::Arrived);
            return match served {
                Some(Served::Arriving(assembly)) => Some(assembly.into_bytes().into()),
                _ => None,
            };
        }
        let report = added == Added::Known || assembly.is_time_to_report();
        let have = report.then(|| assembly.report());
        if let Some(have) = have {
            cx.counters.duplicates += u64::from(added == Added::Known);
            self.report(seq, &have, port, cx);
        }
        None
    }

    /// A request was received by a commit.
    pub fn received(&mut self, seq: u64) {
        self.slots.insert(seq, Served::Received);
    }

    /// What the next commit should write of it, if anything; which requests, is added.
    pub fn settlement(&self, seqs: &mut Vec<(u64, bool)>) -> Option<Settlement> {
        let row = self.row.filter(|_| self.lags())?;
        let first = seqs.len();
        seqs.extend(self.settled());
        Some(Settlement {
            key: self.key,
            row,
            low: self.low,
            stream: self.stream,
            address: self.address,
            floor_only: (self.stream, self.address) == (self.row_stream, self.row_address),
            seqs: first..seqs.len(),
        })
    }

    /// The tables say now what the client had said.
    pub fn written(&mut self, done: &Settlement, seqs: &[(u64, bool)]) {
        self.floor = self.floor.max(done.low);
        (self.row_stream, self.row_address) = (done.stream, done.address);
        for &(seq, below_floor) in seqs {
            match below_floor {
                true => drop(self.slots.remove(seq)),
                false => self.slots.insert(seq, Served::Done),
            }
        }
    }

    pub fn drop_assemblies(&mut self) -> usize {
        let mut freed = 0;
        self.slots.retain(|served| match served {
            Served::Arriving(assembly) => {
                freed += assembly.memory();
                false
            }
            _ => true,
        });
        freed
    }

    /// All that decides what it will do, times excepted.
    pub fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (
            self.key,
            self.stream,
            self.address,
            self.floor,
            self.low,
            self.done,
        )
            .hash(hasher);
        (self.row.is_some(), &self.slots, self.greet, self.listed).hash(hasher);
    }
}

/// A packet to the client with nothing in it.
pub(super) fn header(kind: Kind, (client, link): ClientKey) -> Header {
    Header {
        kind,
        flags: 0,
        client,
        link,
        message_len: 0,
        stream: 0,
        cookie: 0,
        seq: 0,
        low: 0,
        done: 0,
        offset: 0,
        piece: 0,
    }
}

pub(super) fn is_done(seq: u64, low: u64, done: u64) -> bool {
    (low + 1..low + 65).contains(&seq) && done >> (seq - low - 1) & 1 != 0
}

impl From<&Client> for NodeId {
    fn from(client: &Client) -> NodeId {
        client.key.0
    }
}
