//! What a program does with messages in its transaction: tables and machine together.
//!
//! Each function here changes the tables inside the caller's transaction and notes what the machine
//! is to be told. [`Exchange::before_commit`] adds to the transaction what clients have settled
//! meanwhile; [`Exchange::committed`] and [`Exchange::aborted`] tell the machine how it ended. The
//! Rust interface, the C interface and the simulator are its three callers.
//!
//! - [`client`]: sends requests, receives their responses;
//! - [`server`]: receives requests, sends responses, settles.

mod client;
mod server;

use std::net::SocketAddr;

use vista::Ptr;

use crate::machine::commit::Deferred;
use crate::machine::timer::Nanos;
use crate::machine::{ClientKey, Machine, Send};
use crate::memory::Memory;
use crate::tables::{self, LinkRow, Root};
use crate::{Error, NodeId, RequestId};

pub use client::Answer;

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
