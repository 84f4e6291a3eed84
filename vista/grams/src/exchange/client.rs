//! What a client does in its transaction: sends requests, receives their responses.

use super::{Exchange, limit};
use crate::machine::commit::Written;
use crate::machine::link::Link;
use crate::machine::timer::Nanos;
use crate::machine::{Machine, Send};
use crate::memory::Memory;
use crate::message::Message;
use crate::{Error, NodeId, RequestId, tables};

/// What [`Exchange::receive_response`] found.
pub enum Answer {
    Response(Message),
    NotYet,
}

impl Exchange {
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
}
