//! What a server does in its transaction: receives requests, sends responses, and writes what its
//! clients have settled.

use vista::Ptr;

use super::{Exchange, SETTLE_AT_ONCE, limit};
use crate::machine::client::Client;
use crate::machine::commit::{Received, Settlement, Written};
use crate::machine::timer::Nanos;
use crate::machine::{ClientKey, Inbound, Machine, Send};
use crate::memory::Memory;
use crate::tables::{self, ClientRow};
use crate::{Error, NodeId, RequestId};

impl Exchange {
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
    pub(super) fn settle(
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
}
