//! What a transaction does to the machine: nothing before it is durable, all of it after.

use std::net::SocketAddr;
use std::ops::Range;

use rio_core::At;
use vista::Ptr;

use super::client::{Client, Served};
use super::link::Link;
use super::timer::{Nanos, nanos};
use super::{ClientKey, Context, Inbound, Machine, Send, context};
use crate::sum::Part;
use crate::tables::{ClientRow, LinkRow, Spare};
use crate::{Plant, RequestId};

/// What an open transaction has done with messages, in the order it did it.
#[derive(Default)]
pub struct Deferred {
    pub links: Vec<(u32, Ptr<LinkRow>, LinkRow)>,
    pub closed: Vec<u32>,
    pub written_links: Vec<u32>,
    pub sent: Vec<Written<u32>>,
    /// Responses received and requests abandoned: link and number.
    pub settled: Vec<(u32, u64)>,
    pub received: Vec<Received>,
    pub responded: Vec<Written<ClientKey>>,
    pub rows: Vec<(ClientKey, Ptr<ClientRow>)>,
    pub settlements: Vec<Settlement>,
    /// Those of all settlements, one after the other.
    pub settled_seqs: Vec<(u64, bool)>,
    pub forgotten: Vec<ClientKey>,
    /// The block of a response that was settled, until another one takes it.
    pub spare: Option<Spare>,
}

/// A request that the transaction has taken.
pub struct Received {
    pub inbound: Inbound,
    /// Of its client.
    pub row: Ptr<ClientRow>,
    pub answered: bool,
}

/// A message that the transaction wrote into a table.
#[derive(Clone, Copy, Debug)]
pub struct Written<K> {
    pub key: K,
    pub seq: u64,
    pub at: At,
    pub len: u32,
    /// Of its sum, if it was summed while it was copied.
    pub part: Option<Part>,
}

/// What a row is made to say.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub key: ClientKey,
    pub row: Ptr<ClientRow>,
    pub low: u64,
    pub stream: u64,
    pub address: SocketAddr,
    /// The floor is all that changes.
    pub floor_only: bool,
    /// Which of `settled_seqs`.
    pub seqs: Range<usize>,
}

impl Deferred {
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.closed.is_empty()
            && self.written_links.is_empty()
            && self.sent.is_empty()
            && self.settled.is_empty()
            && self.received.is_empty()
            && self.responded.is_empty()
            && self.settlements.is_empty()
            && self.forgotten.is_empty()
    }

    /// Whether the open transaction sends this request.
    pub fn sends(&self, link: u32, seq: u64) -> bool {
        self.sent
            .iter()
            .any(|sent| (sent.key, sent.seq) == (link, seq))
    }

    /// Whether there is more than requests and responses.
    fn is_rare(&self) -> bool {
        !(self.forgotten.is_empty()
            && self.links.is_empty()
            && self.closed.is_empty()
            && self.rows.is_empty()
            && self.written_links.is_empty())
    }

    fn clear(&mut self) {
        self.links.clear();
        self.closed.clear();
        self.written_links.clear();
        self.sent.clear();
        self.settled.clear();
        self.received.clear();
        self.responded.clear();
        self.rows.clear();
        self.settlements.clear();
        self.settled_seqs.clear();
        self.forgotten.clear();
        self.spare = None;
    }
}

impl Machine {
    /// The next request for a transaction to receive. One that its client has given up is dropped.
    pub fn take_request(&mut self) -> Option<Inbound> {
        while let Some(inbound) = self.inbox.pop_front() {
            self.inbox_bytes -= inbound.bytes.len();
            let Some(client) = self.clients.get_mut(&inbound.client) else {
                continue;
            };
            if inbound.seq < client.low && self.settings.plant != Some(Plant::FloorIgnored) {
                client.slots.remove(inbound.seq);
                continue;
            }
            return Some(inbound);
        }
        None
    }

    /// It was not received after all.
    pub fn give_back(&mut self, inbound: Inbound) {
        self.inbox_bytes += inbound.bytes.len();
        self.inbox.push_front(inbound);
    }

    /// How long the request is that will be taken next.
    pub fn next_request_len(&self) -> Option<usize> {
        self.inbox.front().map(|inbound| inbound.bytes.len())
    }

    /// Clients about which the next commit should write something.
    pub fn take_unsettled(&mut self, most: usize, keys: &mut Vec<ClientKey>) {
        let first = self.unsettled.len().saturating_sub(most);
        keys.extend(self.unsettled.drain(first..));
        for key in &*keys {
            if let Some(client) = self.clients.get_mut(key) {
                client.unlisted();
            }
        }
    }

    /// Those were not written after all.
    pub fn still_unsettled(&mut self, keys: &[ClientKey]) {
        for key in keys {
            let client = self.clients.get_mut(key);
            if client.is_some_and(Client::list_if_lagging) {
                self.unsettled.push(*key);
            }
        }
    }

    pub fn has_unsettled(&self) -> bool {
        self.links_lag || !self.unsettled.is_empty()
    }

    /// Whether it is time to look for clients that can be forgotten: sooner when there are too many.
    pub fn is_time_to_forget(&self, now: Nanos) -> bool {
        let often = nanos(self.settings.forget_after) / 8;
        let many = self.clients.len() > self.settings.clients;
        let wait = if many {
            often.min(1_000_000_000)
        } else {
            often
        };
        now.saturating_sub(self.forgot) > wait && !self.clients.is_empty()
    }

    /// They were looked for.
    pub fn looked_for_idle(&mut self, now: Nanos) {
        self.forgot = now;
    }

    /// Links about whose servers the next commit should write something.
    pub fn lagging_links(&self) -> Vec<u32> {
        if !self.links_lag {
            return Vec::new();
        }
        let lagging = self.links.iter().filter(|(_, link)| link.row_lags);
        lagging.map(|(number, _)| *number).collect()
    }

    /// Clients that may be forgotten: idle for long, or too many.
    pub fn forgettable(&self, now: Nanos, most: usize) -> Vec<(ClientKey, Option<Ptr<ClientRow>>)> {
        let long = nanos(self.settings.forget_after);
        let idle = self.clients.iter().filter(|client| client.is_idle());
        let mut idle: Vec<_> = idle
            .map(|client| (client.heard, client.key, client.row))
            .collect();
        idle.sort_unstable_by_key(|(heard, key, _)| (*heard, *key));
        let surplus = self.clients.len().saturating_sub(self.settings.clients);
        let due = idle
            .iter()
            .enumerate()
            .filter(|(index, (heard, _, _))| *index < surplus || now.saturating_sub(*heard) > long);
        due.take(most)
            .map(|(_, (_, key, row))| (*key, *row))
            .collect()
    }

    /// The program is shown a response.
    pub fn taken(&mut self, now: Nanos, link: u32, seq: u64, out: &mut Vec<Send>) {
        let mut cx = context!(self, now, out);
        if let Some(link) = self.links.get_mut(&link) {
            link.taken(seq, &mut cx);
        }
    }

    /// The transaction is durable: its messages leave, what it received is settled.
    pub fn committed(&mut self, now: Nanos, deferred: &mut Deferred, out: &mut Vec<Send>) {
        if deferred.is_rare() {
            self.committed_rare(now, deferred, out);
        }
        let mut cx = context!(self, now, out);
        for done in &deferred.settlements {
            if let Some(client) = self.clients.get_mut(&done.key) {
                client.written(done, &deferred.settled_seqs[done.seqs.clone()]);
                if client.list_if_lagging() {
                    self.unsettled.push(done.key);
                }
            }
        }
        for &(number, seq) in &deferred.settled {
            if let Some(link) = self.links.get_mut(&number) {
                link.settled(seq, &mut cx);
            }
        }
        for received in deferred.received.iter().filter(|one| !one.answered) {
            if let Some(client) = self.clients.get_mut(&received.inbound.client) {
                client.received(received.inbound.seq);
            }
        }
        for written @ &Written { key, .. } in &deferred.responded {
            if let Some(client) = self.clients.get_mut(&key) {
                client.responded(written, &mut cx);
                if client.list_if_lagging() {
                    self.unsettled.push(key);
                }
            }
        }
        for written @ &Written { key, .. } in &deferred.sent {
            if let Some(link) = self.links.get_mut(&key) {
                link.committed(written, &mut cx);
            }
        }
        deferred.clear();
    }

    /// Peers that are new or gone, on either side.
    #[cold]
    fn committed_rare(&mut self, now: Nanos, deferred: &mut Deferred, out: &mut Vec<Send>) {
        let mut voided = false;
        for key in deferred.forgotten.drain(..) {
            // It may have been heard of since; then it is known as a stranger is.
            let arrived = self
                .clients
                .get(&key)
                .is_some_and(|client| !client.is_idle());
            match self.clients.get_mut(&key).filter(|_| arrived) {
                Some(client) => client.row = None,
                None => drop(self.clients.remove(&key)),
            }
            voided = true;
        }
        if voided && self.settings.plant != Some(Plant::GrantOutlivesClient) {
            self.grants.void_all();
        }
        for (number, at, row) in deferred.links.drain(..) {
            self.last_link = self.last_link.max(number);
            self.links.insert(number, Link::new(at, &row, self.boots));
        }
        for number in deferred.closed.drain(..) {
            let mut cx = context!(self, now, out);
            if let Some(mut link) = self.links.remove(&number) {
                link.closed(&mut cx);
            }
        }
        for (key, row) in deferred.rows.drain(..) {
            if let Some(client) = self.clients.get_mut(&key) {
                client.row = Some(row);
                if client.list_if_lagging() {
                    self.unsettled.push(key);
                }
            }
        }
        for number in deferred.written_links.drain(..) {
            if let Some(link) = self.links.get_mut(&number) {
                link.row_lags = false;
            }
            self.links_lag = false;
        }
    }

    /// The transaction is undone: what it received comes again, to whoever asks next.
    pub fn aborted(&mut self, deferred: &mut Deferred) {
        for Received { inbound, .. } in deferred.received.drain(..).rev() {
            if self.settings.plant == Some(Plant::AbortLosesRequest) {
                continue;
            }
            self.give_back(inbound);
        }
        let keys: Vec<ClientKey> = deferred
            .settlements
            .drain(..)
            .map(|done| done.key)
            .collect();
        self.still_unsettled(&keys);
        deferred.clear();
    }

    /// The planted faults: a message leaves before its commit.
    pub fn leaves_early(
        &mut self,
        now: Nanos,
        request: Option<Written<u32>>,
        response: Option<Written<ClientKey>>,
        out: &mut Vec<Send>,
    ) {
        let plant = self.settings.plant;
        let mut cx = context!(self, now, out);
        if let (Some(w), Some(Plant::RequestLeavesEarly)) = (request, plant)
            && let Some(link) = self.links.get_mut(&w.key)
        {
            link.committed(&w, &mut cx);
        }
        if let (Some(w), Some(Plant::ResponseLeavesEarly)) = (response, plant)
            && let Some(client) = self.clients.get_mut(&w.key)
        {
            client.responded(&w, &mut cx);
        }
    }

    /// The program says where a server is now.
    pub fn peer_moved(&mut self, now: Nanos, link: u32, address: SocketAddr, out: &mut Vec<Send>) {
        let mut cx = context!(self, now, out);
        if let Some(link) = self.links.get_mut(&link) {
            link.moved(address, &mut cx);
            link.row_lags = true;
            self.links_lag = true;
        }
    }

    /// The program lets another installation have a link's requests.
    pub fn accept_replacement(&mut self, now: Nanos, link: u32, out: &mut Vec<Send>) {
        let mut cx = context!(self, now, out);
        if let Some(link) = self.links.get_mut(&link) {
            link.accept_replacement(&mut cx);
            self.links_lag |= link.row_lags;
        }
    }

    /// The client of a request that was received and is not answered.
    pub fn received_client(&self, id: &RequestId) -> Option<&Client> {
        let key = (crate::NodeId(id.node), id.link as u32);
        let client = self.clients.get(&key)?;
        matches!(client.slots.get(id.seq), Some(Served::Received)).then_some(client)
    }
}
