//! Messages as a part of the transactions that a C program begins and ends itself.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vista::AnyRio;
use vista_c::{Extension, Vista};
use vista_core::Core;
use vistagrams::exchange::{Answer, Exchange};
use vistagrams::memory::InCore;
use vistagrams::net::Net;
use vistagrams::{Error, Message, RequestId};

pub struct Messages {
    pub net: Arc<Net>,
    pub thread: Option<JoinHandle<()>>,
    pub exchange: Exchange,
    pub segment: usize,
    pub path: PathBuf,
}

/// A request with its name.
pub type Received = (RequestId, Message);

/// What a wait found.
pub enum Found<T> {
    Nothing,
    /// The buffer is too short for the message, which stays where it is.
    NeedsRoom(usize),
    Message(T),
}

impl Messages {
    fn memory<'m>(
        core: &'m mut Core<AnyRio>,
        segment: usize,
        path: &'m PathBuf,
    ) -> InCore<'m, AnyRio> {
        InCore {
            core,
            segment,
            path,
        }
    }

    pub fn peer(
        &mut self,
        core: &mut Core<AnyRio>,
        address: std::net::SocketAddr,
    ) -> Result<u32, Error> {
        let shared = self.net.lock();
        let mut memory = Messages::memory(core, self.segment, &self.path);
        self.exchange.peer(&mut memory, &shared.machine, address)
    }

    pub fn send_request(
        &mut self,
        core: &mut Core<AnyRio>,
        peer: u32,
        message: &[u8],
    ) -> Result<RequestId, Error> {
        let mut shared = self.net.lock();
        let mut memory = Messages::memory(core, self.segment, &self.path);
        let early = (0, &mut Vec::new());
        self.exchange
            .send_request(&mut memory, &mut shared.machine, early, peer, message)
    }

    pub fn receive_request(
        &mut self,
        core: &mut Core<AnyRio>,
        room: usize,
        timeout: Duration,
    ) -> Result<Found<Received>, Error> {
        let (exchange, segment, path) = (&mut self.exchange, self.segment, &self.path);
        let found = self.net.wait(timeout, |machine| {
            let len = machine.next_request_len()?;
            if len > room {
                return Some(Ok(Found::NeedsRoom(len)));
            }
            let mut memory = Messages::memory(core, segment, path);
            let received = exchange.receive_request(&mut memory, machine).transpose()?;
            Some(received.map(|inbound| Found::Message((inbound.id(), inbound.bytes))))
        });
        found.unwrap_or(Ok(Found::Nothing))
    }

    pub fn send_response(
        &mut self,
        core: &mut Core<AnyRio>,
        id: &RequestId,
        message: &[u8],
    ) -> Result<(), Error> {
        let mut shared = self.net.lock();
        let mut memory = Messages::memory(core, self.segment, &self.path);
        let early = (0, &mut Vec::new());
        self.exchange
            .send_response(&mut memory, &mut shared.machine, early, id, message)
    }

    pub fn receive_response(
        &mut self,
        core: &mut Core<AnyRio>,
        id: &RequestId,
        room: usize,
        timeout: Duration,
    ) -> Result<Found<Message>, Error> {
        let (exchange, segment, path) = (&mut self.exchange, self.segment, &self.path);
        let found = self.net.wait(timeout, |machine| {
            let answer = machine
                .link(id.link as u32)
                .and_then(|link| link.answer(id.seq));
            if let Some(len) = answer.map(|bytes| bytes.len())
                && len > room
                && exchange.check_unsettled(machine, id).is_ok()
            {
                return Some(Ok(Found::NeedsRoom(len)));
            }
            let mut memory = Messages::memory(core, segment, path);
            match exchange.receive_response(&mut memory, machine, (0, &mut Vec::new()), id) {
                Ok(Answer::Response(bytes)) => Some(Ok(Found::Message(bytes))),
                Ok(Answer::NotYet) => None,
                Err(error) => Some(Err(error)),
            }
        });
        found.unwrap_or(Ok(Found::Nothing))
    }

    pub fn abandon(&mut self, core: &mut Core<AnyRio>, id: &RequestId) -> Result<(), Error> {
        let shared = self.net.lock();
        let mut memory = Messages::memory(core, self.segment, &self.path);
        self.exchange.abandon(&mut memory, &shared.machine, id)
    }

    /// The place of an answer that is there, or the count if a request is; None if the time is over.
    pub fn select(&self, ids: &[RequestId], timeout: Duration) -> Option<usize> {
        self.net.wait(timeout, |machine| {
            let there = |id: &RequestId| {
                let link = machine.link(id.link as u32);
                link.is_none_or(|link| {
                    link.answer(id.seq).is_some()
                        || link.replaced.is_some()
                        || !link.is_unsettled(id.seq)
                })
            };
            let answer = ids.iter().position(there);
            answer.or_else(|| (machine.inbox_len() > 0).then_some(ids.len()))
        })
    }

    pub fn of(vista: &mut Vista) -> Option<(&mut vista::Store<AnyRio>, &mut Messages)> {
        let (store, extension) = vista.parts();
        let messages = extension?.as_any().downcast_mut::<Messages>()?;
        Some((store, messages))
    }
}

impl Extension for Messages {
    fn before_end(&mut self, core: &mut Core<AnyRio>) -> Result<(), vista::Error> {
        let mut shared = self.net.lock();
        let now = shared.told;
        let mut memory = Messages::memory(core, self.segment, &self.path);
        let done = self
            .exchange
            .before_commit(&mut memory, &mut shared.machine, now);
        done.map_err(|error| match error {
            Error::Vista(error) => error,
            other => vista::Error::Aborted(other.to_string()),
        })
    }

    fn ended(&mut self) {
        let exchange = &mut self.exchange;
        let mut shared = self.net.lock();
        let now = exchange.commit_time(shared.told, || self.net.now());
        self.net.with_locked(&mut shared, now, |machine, now, out| {
            exchange.committed(machine, now, out);
        });
    }

    fn aborted(&mut self) {
        self.exchange.aborted(&mut self.net.lock().machine);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.net.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
