//! What a program does with messages in its transaction: tables and machine together.
//!
//! Each function here changes the tables inside the caller's transaction and notes what the machine
//! is to be told. [`Exchange::before_commit`] adds to the transaction what clients have settled
//! meanwhile; [`Exchange::committed`] and [`Exchange::aborted`] tell the machine how it ended. The
//! Rust interface, the C interface and the simulator are three callers of this file.

use std::net::SocketAddr;

use vista::Ptr;

use crate::machine::client::Client;
use crate::machine::commit::{Deferred, Received, Settlement, Written};
use crate::machine::link::Link;
use crate::machine::timer::Nanos;
use crate::machine::{ClientKey, Inbound, Machine, Send};
use crate::memory::Memory;
use crate::message::Message;
use crate::tables::{self, ClientRow, LinkRow, Root};
use crate::{Error, NodeId, RequestId};

/// What a commit settles beside its own work, so that no commit is long.
const SETTLE_AT_ONCE: usize = 64;

/// A transaction's messages, until it ends.
pub struct Exchange {
    root: Ptr<Root>,
    deferred: Deferred,
    /// Clients about which the commit under way writes.
    keys: Vec<ClientKey>,
    /// What the last commit has sent, if none since has settled any request: so these are unsettled.
    fresh: Vec<RequestId>,
    /// The machine's, for answering without it.
    window: u32,
    message_limit: usize,
}

/// What [`Exchange::receive_response`] found.
pub enum Answer {
    Response(Message),
    NotYet,
}

impl Exchange {
    pub fn new(root: Ptr<Root>) -> Exchange {
        Exchange {
            root,
            deferred: Deferred::default(),
            keys: Vec::new(),
            fresh: Vec::new(),
            window: 0,
            message_limit: 0,
        }
    }

    /// The link to the server at this address; a new one if there is none.
    pub fn peer(
        &mut self,
        memory: &mut impl Memory,
        machine: &Machine,
        address: SocketAddr,
    ) -> Result<u32, Error> {
        let known = machine.links().find(|(_, link)| link.address == address);
        let added = |(_, _, row): &&(u32, _, LinkRow)| SocketAddr::from(row.address) == address;
        if let Some((number, _)) = known {
            return Ok(number);
        }
        if let Some((number, _, _)) = self.deferred.links.iter().find(added) {
            return Ok(*number);
        }
        let limit = machine.settings.clients;
        if machine.links().count() + self.deferred.links.len() >= limit {
            return Err(Error::TooManyPeers { limit });
        }
        let (at, number) = tables::add_link(memory, self.root, address)?;
        let row = memory.get(at)?;
        self.deferred.links.push((number as u32, at, row));
        Ok(number as u32)
    }

    /// Forgets a link of which nothing is unsettled.
    pub fn forget_peer(
        &mut self,
        memory: &mut impl Memory,
        machine: &Machine,
        link: u32,
    ) -> Result<(), Error> {
        let known = machine.link(link).ok_or(Error::NoSuchPeer(link))?;
        let sends = self
            .deferred
            .sent
            .iter()
            .filter(|sent| sent.key == link)
            .count();
        let settles = self
            .deferred
            .settled
            .iter()
            .filter(|settled| settled.0 == link)
            .count();
        let unsettled = known.unsettled() + sends - settles;
        if unsettled > 0 {
            let server = known.address;
            return Err(Error::PeerBusy { server, unsettled });
        }
        tables::remove_link(memory, self.root, known.row)?;
        self.deferred.closed.push(link);
        Ok(())
    }

    #[inline]
    pub fn send_request(
        &mut self,
        memory: &mut impl Memory,
        machine: &mut Machine,
        (now, out): (Nanos, &mut Vec<Send>),
        link: u32,
        message: &[u8],
    ) -> Result<RequestId, Error> {
        limit(message.len(), machine.settings.message_limit)?;
        let known = machine.link(link);
        let (row, address, window) = match known {
            Some(known) if known.replaced.is_some() => {
                return Err(Error::ServerReplaced {
                    server: known.address,
                });
            }
            Some(known) => (known.row, known.address, known.window),
            None => {
                let mut added = self.deferred.links.iter();
                let added = added.find(|(number, _, _)| *number == link);
                let (_, at, row) = added.ok_or(Error::NoSuchPeer(link))?;
                (*at, row.address.into(), u32::MAX)
            }
        };
        if self.deferred.closed.contains(&link) {
            return Err(Error::NoSuchPeer(link));
        }
        let window = window.min(machine.window);
        let sent = self.deferred.sent.iter().filter(|sent| sent.key == link);
        // All from the first that is unsettled on. What this transaction has settled counts as well:
        // an abort brings it back.
        let reach = sent.count() as u64 + known.map_or(0, Link::reach);
        if reach >= u64::from(window) {
            return Err(Error::WindowFull {
                server: address,
                window,
            });
        }
        let (seq, stored) = tables::send_request(memory, row, machine.window, message)?;
        let written = Written {
            key: link,
            seq,
            at: stored.at,
            len: message.len() as u32,
            part: stored.part,
        };
        self.deferred.sent.push(written);
        if machine.settings.plant.is_some() {
            machine.leaves_early(now, Some(written), None, out);
        }
        Ok(RequestId {
            node: machine.node().0,
            link: link.into(),
            seq,
        })
    }

    /// The response to a request that an earlier transaction has sent, if it has arrived.
    #[inline]
    pub fn receive_response(
        &mut self,
        memory: &mut impl Memory,
        machine: &mut Machine,
        (now, out): (Nanos, &mut Vec<Send>),
        id: &RequestId,
    ) -> Result<Answer, Error> {
        let number = id.link as u32;
        let link = machine.link(number);
        let known = link.filter(|link| {
            NodeId(id.node) == machine.node()
                && link.is_unsettled(id.seq)
                && !self.deferred.settled.contains(&(number, id.seq))
        });
        let Some(link) = known else {
            self.check_unsettled(machine, id)?;
            return Err(Error::NoSuchRequest(*id));
        };
        let Some(bytes) = link.answer(id.seq) else {
            return match link.replaced {
                Some(_) => Err(Error::ServerReplaced {
                    server: link.address,
                }),
                None => Ok(Answer::NotYet),
            };
        };
        let bytes = bytes.clone();
        tables::settle_request(memory, link.row, machine.window, id.seq)?;
        self.deferred.settled.push((number, id.seq));
        if machine.settings.plant.is_some() {
            machine.taken(now, number, id.seq, out);
        }
        Ok(Answer::Response(bytes))
    }

    /// Gives a request up: whether the server has received it, or will, stays unknown.
    pub fn abandon(
        &mut self,
        memory: &mut impl Memory,
        machine: &Machine,
        id: &RequestId,
    ) -> Result<(), Error> {
        self.check_unsettled(machine, id)?;
        let number = id.link as u32;
        let link = machine.link(number).ok_or(Error::NoSuchRequest(*id))?;
        tables::settle_request(memory, link.row, machine.window, id.seq)?;
        self.deferred.settled.push((number, id.seq));
        Ok(())
    }

    /// Whether an answer to this request may be waited for.
    pub fn check_unsettled(&self, machine: &Machine, id: &RequestId) -> Result<(), Error> {
        let number = id.link as u32;
        if NodeId(id.node) == machine.node() && self.deferred.sends(number, id.seq) {
            return Err(Error::SentInThisTransaction(*id));
        }
        let link = machine.link(number);
        let known = NodeId(id.node) == machine.node()
            && link.is_some_and(|link| link.is_unsettled(id.seq))
            && !self.deferred.settled.contains(&(number, id.seq));
        match known {
            true => Ok(()),
            false => Err(Error::NoSuchRequest(*id)),
        }
    }

    /// A request that has arrived, if there is one.
    #[inline]
    pub fn receive_request(
        &mut self,
        memory: &mut impl Memory,
        machine: &mut Machine,
    ) -> Result<Option<Inbound>, Error> {
        let Some(inbound) = machine.take_request() else {
            return Ok(None);
        };
        match self.row_for(memory, machine, &inbound.client) {
            Ok(row) => {
                self.window = machine.window;
                self.message_limit = machine.settings.message_limit;
                self.deferred.received.push(Received {
                    inbound: inbound.clone(),
                    row,
                    answered: false,
                });
                Ok(Some(inbound))
            }
            Err(error) => {
                machine.give_back(inbound);
                Err(error)
            }
        }
    }

    /// The row of a client of which a request is received, with room for it.
    fn row_for(
        &mut self,
        memory: &mut impl Memory,
        machine: &Machine,
        key: &ClientKey,
    ) -> Result<Ptr<ClientRow>, Error> {
        let client = machine.client(key).expect("it has just sent the request");
        match (client.row, self.added_row(key)) {
            (Some(row), None) => {
                self.settle(memory, machine.window, client)?;
                Ok(row)
            }
            (_, Some(row)) => Ok(row),
            (None, None) => self.add_client(memory, client, *key),
        }
    }

    /// A client of which no request was received before.
    #[cold]
    fn add_client(
        &mut self,
        memory: &mut impl Memory,
        client: &Client,
        key: ClientKey,
    ) -> Result<Ptr<ClientRow>, Error> {
        let (stream, low, address) = (client.stream, client.low, client.address);
        let row = tables::add_client(memory, self.root, key, (stream, low), address)?;
        self.deferred.rows.push((key, row));
        self.deferred.settlements.push(Settlement {
            key,
            row,
            low,
            stream,
            address,
            floor_only: false,
            seqs: 0..0,
        });
        Ok(row)
    }

    /// Whether the request was received, here or by an earlier commit, and is not answered.
    pub fn check_received(&self, machine: &Machine, id: &RequestId) -> Result<(), Error> {
        let key = (NodeId(id.node), id.link as u32);
        let here = self.deferred.received.iter();
        let here = here.filter(|one| one.inbound.id() == *id).count() > 0;
        let answered = self.deferred.responded.iter();
        let answered = answered.filter(|w| (w.key, w.seq) == (key, id.seq)).count() > 0;
        match (here || machine.received_client(id).is_some()) && !answered {
            true => Ok(()),
            false => Err(Error::NotReceived(*id)),
        }
    }

    #[inline]
    pub fn send_response(
        &mut self,
        memory: &mut impl Memory,
        machine: &mut Machine,
        (now, out): (Nanos, &mut Vec<Send>),
        id: &RequestId,
        message: &[u8],
    ) -> Result<(), Error> {
        let written = match self.answer_here(memory, id, message) {
            Some(written) => written?,
            None => {
                limit(message.len(), machine.settings.message_limit)?;
                self.check_received(machine, id)?;
                let key = (NodeId(id.node), id.link as u32);
                let row = self.row(machine, &key).ok_or(Error::NotReceived(*id))?;
                self.respond(memory, (key, row, machine.window), id.seq, message)?
            }
        };
        if machine.settings.plant.is_some() {
            machine.leaves_early(now, None, Some(written), out);
        }
        Ok(())
    }

    /// The same, if the open transaction has received the request: that takes no machine.
    #[inline]
    pub fn answer_here(
        &mut self,
        memory: &mut impl Memory,
        id: &RequestId,
        message: &[u8],
    ) -> Option<Result<Written<ClientKey>, Error>> {
        let mut received = self.deferred.received.iter();
        let is_it = |one: &Received| one.inbound.seq == id.seq && one.inbound.id() == *id;
        let index = received.position(is_it)?;
        let (row, key) = match &self.deferred.received[index] {
            Received { answered: true, .. } => return None,
            Received { row, inbound, .. } => (*row, inbound.client),
        };
        let to = (key, row, self.window);
        let written = limit(message.len(), self.message_limit)
            .and_then(|()| self.respond(memory, to, id.seq, message));
        self.deferred.received[index].answered = written.is_ok();
        Some(written)
    }

    #[inline]
    fn respond(
        &mut self,
        memory: &mut impl Memory,
        (key, row, window): (ClientKey, Ptr<ClientRow>, u32),
        seq: u64,
        message: &[u8],
    ) -> Result<Written<ClientKey>, Error> {
        let spare = &mut self.deferred.spare;
        let stored = tables::send_response(memory, row, window, seq, message, spare)?;
        let len = message.len() as u32;
        let written = Written {
            key,
            seq,
            at: stored.at,
            len,
            part: stored.part,
        };
        self.deferred.responded.push(written);
        Ok(written)
    }

    fn row(&self, machine: &Machine, key: &ClientKey) -> Option<Ptr<ClientRow>> {
        self.added_row(key).or_else(|| machine.client(key)?.row)
    }

    /// Of a client that is new.
    fn added_row(&self, key: &ClientKey) -> Option<Ptr<ClientRow>> {
        let mut added = self.deferred.rows.iter();
        Some(added.find(|(added, _)| added == key)?.1)
    }

    /// Writes what a client has settled, so that its slots are free for what comes.
    fn settle(
        &mut self,
        memory: &mut impl Memory,
        window: u32,
        client: &Client,
    ) -> Result<(), Error> {
        // Once in a transaction is enough: what comes meanwhile is written by the next one.
        let mut settled = self.deferred.settlements.iter();
        if settled.any(|done| done.key == client.key) {
            return Ok(());
        }
        let Some(settlement) = client.settlement(&mut self.deferred.settled_seqs) else {
            return Ok(());
        };
        let (row, low) = (settlement.row, settlement.low);
        for &(seq, below_floor) in &self.deferred.settled_seqs[settlement.seqs.clone()] {
            let spare = &mut self.deferred.spare;
            tables::settle_response(memory, row, window, seq, below_floor, spare)?;
        }
        match settlement.floor_only {
            true => tables::set_floor(memory, row, low)?,
            false => {
                let head = (settlement.stream, low);
                tables::set_client(memory, row, head, settlement.address)?;
            }
        }
        self.deferred.settlements.push(settlement);
        Ok(())
    }

    /// Whether a commit has anything to do with messages.
    pub fn is_idle(&self, machine: &Machine, now: Nanos) -> bool {
        let settled = self.deferred.is_empty() && !machine.has_unsettled();
        settled && !machine.is_time_to_forget(now)
    }

    /// When a commit happens. Only a request must know it well, because its answer tells how long
    /// the other side takes; for the rest a moment that was told before will do.
    pub fn commit_time(&self, told: Nanos, now: impl FnOnce() -> Nanos) -> Nanos {
        match self.deferred.sent.is_empty() {
            true => told,
            false => now(),
        }
    }

    /// The last part of the transaction: what was heard since the last commit.
    pub fn before_commit(
        &mut self,
        memory: &mut impl Memory,
        machine: &mut Machine,
        now: Nanos,
    ) -> Result<(), Error> {
        if machine.is_time_to_forget(now) {
            machine.looked_for_idle(now);
            self.forget_idle(memory, machine, now)?;
        }
        // Answered ones are in their slots already.
        for index in 0..self.deferred.received.len() {
            let received = &self.deferred.received[index];
            if !received.answered {
                let (row, seq) = (received.row, received.inbound.seq);
                tables::receive_request(memory, row, machine.window, seq)?;
            }
        }
        self.keys.clear();
        machine.take_unsettled(SETTLE_AT_ONCE, &mut self.keys);
        for index in 0..self.keys.len() {
            let Some(client) = machine.client(&self.keys[index]) else {
                continue;
            };
            if let Err(error) = self.settle(memory, machine.window, client) {
                machine.still_unsettled(&self.keys[index..]);
                return Err(error);
            }
        }
        if let Some(spare) = self.deferred.spare.take() {
            spare.free(memory)?;
        }
        for number in machine.lagging_links() {
            if let Some(link) = machine.link(number)
                && !self.deferred.closed.contains(&number)
            {
                let server = link.server.unwrap_or(NodeId::NONE);
                tables::set_server(memory, link.row, server, link.server_boots, link.address)?;
                self.deferred.written_links.push(number);
            }
        }
        Ok(())
    }

    /// Forgets idle clients; a commit does so now and then.
    pub fn forget_idle(
        &mut self,
        memory: &mut impl Memory,
        machine: &Machine,
        now: Nanos,
    ) -> Result<usize, Error> {
        let mut idle = machine.forgettable(now, SETTLE_AT_ONCE);
        // Of one that this transaction has just heard, or forgotten, nothing is idle.
        idle.retain(|(key, _)| {
            let received = self
                .deferred
                .received
                .iter()
                .any(|received| received.inbound.client == *key);
            let settled = self
                .deferred
                .settlements
                .iter()
                .any(|done| done.key == *key);
            !received && !settled && !self.deferred.forgotten.contains(key)
        });
        for (key, row) in &idle {
            if let Some(row) = row {
                tables::remove_client(memory, self.root, *row)?;
            }
            self.deferred.forgotten.push(*key);
        }
        Ok(idle.len())
    }

    /// Whether the request was sent by the last commit, and so may be waited for.
    pub fn is_fresh(&self, id: &RequestId) -> bool {
        self.fresh.contains(id)
    }

    pub fn committed(&mut self, machine: &mut Machine, now: Nanos, out: &mut Vec<Send>) {
        let Deferred {
            sent,
            settled,
            closed,
            ..
        } = &self.deferred;
        if !(sent.is_empty() && settled.is_empty() && closed.is_empty()) {
            self.fresh.clear();
            let node = machine.node().0;
            self.fresh.extend(sent.iter().map(|sent| RequestId {
                node,
                link: sent.key.into(),
                seq: sent.seq,
            }));
        }
        machine.committed(now, &mut self.deferred, out);
    }

    pub fn aborted(&mut self, machine: &mut Machine) {
        machine.aborted(&mut self.deferred);
    }
}

fn limit(len: usize, limit: usize) -> Result<(), Error> {
    match len <= limit {
        true => Ok(()),
        false => Err(Error::TooLong { len, limit }),
    }
}
