//! The Rust interface: a store with messages, its transactions, and what may be done where.
//!
//! The rules of the model are types:
//! - sending and receiving are methods of [`Transaction`], so they happen inside one;
//! - a [`Request`] comes from receiving one, and responding takes it, so each is answered once;
//! - waiting for an answer takes an [`Awaited`], which [`Grams::awaited`] makes between
//!   transactions only, because an open one borrows the whole: so no transaction waits for the
//!   answer to what it sends itself, which would wait for ever.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vista::{Backend, Segment, SegmentOptions, Store};

use crate::exchange::{Answer, Exchange};
use crate::machine::{Counters, Inbound};
use crate::memory::InTransaction;
use crate::message::Message;
use crate::net::{self, Net};
use crate::stored::Stored;
use crate::tables;
use crate::{Error, NodeId, RequestId, Settings};

/// A store whose transactions can send and receive.
pub struct Grams<B: Backend> {
    // Dropped in this order: the thread of `net` reads what `store` has mapped.
    net: Arc<Net>,
    thread: Option<JoinHandle<()>>,
    exchange: Exchange,
    segment: Segment,
    address: SocketAddr,
    store: Store<B>,
}

/// A server, by the number of the link to it. The number may be kept in persistent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(u32);

/// A request whose answer may be waited for: it was committed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Awaited(RequestId);

/// A request that was received and is not answered.
#[derive(Debug)]
pub struct Request {
    id: RequestId,
    /// None if it was taken, or came with an earlier transaction.
    body: Option<Message>,
}

/// What [`Grams::select`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A request can be received.
    Request,
    /// The answer to the request at this place of the list can be received.
    Response(usize),
    /// The time is over.
    Nothing,
}

/// Waits for messages while another thread may have a transaction.
#[derive(Clone)]
pub struct Waiter {
    net: Arc<Net>,
}

/// An open transaction. Dropped without `commit` it aborts: nothing is sent, and what it received
/// is received again by the next one that asks.
pub struct Transaction<'g, B: Backend> {
    tx: Option<vista::Transaction<'g, B>>,
    exchange: &'g mut Exchange,
    net: &'g Net,
    segment: Segment,
    /// A commit is a store in memory.
    is_quick: bool,
}

impl<B: Backend> Grams<B> {
    /// Opens the messages of a store; its tables are made if there are none. Requests and responses
    /// that were committed and are not settled are sent again from here on.
    ///
    /// # Errors
    /// Settings out of bounds, an address that is not free, damaged tables, or Vista's.
    pub fn open(mut store: Store<B>, settings: Settings) -> Result<Grams<B>, Error> {
        settings.check()?;
        let options = SegmentOptions::heap(settings.segment_len);
        let segment = store.segment_or_create(tables::SEGMENT, options)?;
        let mut tx = store.begin()?;
        let mut memory = InTransaction {
            tx: &mut tx,
            segment,
        };
        let (bound, machine, root) = net::start_tables(&mut memory, settings)?;
        let address = bound.address;
        tx.commit()?;
        let (base, len) = (store.base(segment), store.info(segment)?.len as usize);
        // SAFETY: the store keeps the segment mapped in place; `Drop` ends the thread before it.
        #[allow(unsafe_code)]
        let stored = unsafe { Stored::at(segment.index(), base, len, !store.is_protected()) };
        let (net, thread) = Net::start(bound, machine, stored);
        Ok(Grams {
            net,
            thread: Some(thread),
            exchange: Exchange::new(root),
            segment,
            address,
            store,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn node(&self) -> NodeId {
        self.net.lock().machine.node()
    }

    /// The store, for segments of the program's own. Without a transaction nothing is sent.
    pub fn store(&mut self) -> &mut Store<B> {
        &mut self.store
    }

    /// Opens a transaction.
    #[inline]
    pub fn begin(&mut self) -> Result<Transaction<'_, B>, Error> {
        Ok(Transaction {
            is_quick: !self.store.backend().writes_back(),
            tx: Some(self.store.begin()?),
            exchange: &mut self.exchange,
            net: &self.net,
            segment: self.segment,
        })
    }

    /// Runs a transaction: commits if the body says Ok, aborts if it says Err.
    pub fn transaction<T>(
        &mut self,
        body: impl FnOnce(&mut Transaction<'_, B>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut transaction = self.begin()?;
        let value = body(&mut transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// A request whose answer is to be waited for. A program that was restarted asks with the id
    /// that it has kept.
    ///
    /// # Errors
    /// [`Error::NoSuchRequest`]: its answer was received, or it was never committed.
    pub fn awaited(&self, id: RequestId) -> Result<Awaited, Error> {
        if self.exchange.is_fresh(&id) {
            return Ok(Awaited(id));
        }
        let shared = self.net.lock();
        self.exchange.check_unsettled(&shared.machine, &id)?;
        Ok(Awaited(id))
    }

    /// Every request that is not settled, oldest first on each link.
    pub fn unsettled(&self) -> Vec<RequestId> {
        let shared = self.net.lock();
        let node = shared.machine.node().0;
        let ids = shared.machine.links().flat_map(|(number, link)| {
            link.unsettled_seqs().map(move |seq| RequestId {
                node,
                link: number.into(),
                seq,
            })
        });
        ids.collect()
    }

    /// Requests that a commit has received without answering them; their bodies are the program's.
    pub fn unanswered(&self) -> Vec<Request> {
        let ids = self.net.lock().machine.unanswered();
        let request = |id| Request { id, body: None };
        ids.into_iter().map(request).collect()
    }

    /// Waits until a request has come or one of the answers is there.
    pub fn select(&self, answers: &[Awaited], timeout: Duration) -> Ready {
        select(&self.net, answers, timeout)
    }

    /// For threads that wait while others have their transactions.
    pub fn waiter(&self) -> Waiter {
        Waiter {
            net: self.net.clone(),
        }
    }

    /// Says where a server is now. A server that comes back elsewhere tells its clients itself; this
    /// is for one that has no memory of them, or none that works.
    pub fn move_peer(&mut self, peer: Peer, address: SocketAddr) -> Result<(), Error> {
        self.net
            .with(|machine, now, out| match machine.link(peer.0) {
                Some(_) => {
                    machine.peer_moved(now, peer.0, address, out);
                    Ok(())
                }
                None => Err(Error::NoSuchPeer(peer.0)),
            })?;
        self.tidy()
    }

    /// Lets the installation that answers now have the requests that were meant for a former one.
    pub fn accept_replacement(&mut self, peer: Peer) -> Result<(), Error> {
        self.net
            .with(|machine, now, out| machine.accept_replacement(now, peer.0, out));
        self.tidy()
    }

    /// A transaction of its own for what clients have settled: frees their buffers when the program
    /// commits nothing for long.
    pub fn tidy(&mut self) -> Result<(), Error> {
        self.begin()?.commit()
    }

    /// Lengthens the segment of tables and buffers.
    pub fn grow(&mut self, len: usize) -> Result<(), Error> {
        self.store.grow(self.segment, len)?;
        let len = self.store.info(self.segment)?.len as usize;
        self.net.lock().stored.grown(len);
        Ok(())
    }

    pub fn counters(&self) -> Counters {
        self.net.lock().machine.counters()
    }
}

impl<B: Backend> Drop for Grams<B> {
    fn drop(&mut self) {
        self.net.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<B: Backend> Transaction<'_, B> {
    /// The server at this address: the same number whenever it is asked for.
    pub fn peer(&mut self, address: SocketAddr) -> Result<Peer, Error> {
        let shared = self.net.lock();
        let mut memory = memory(&mut self.tx, self.segment);
        self.exchange
            .peer(&mut memory, &shared.machine, address)
            .map(Peer)
    }

    /// Forgets a server of which nothing is unsettled.
    pub fn forget_peer(&mut self, peer: Peer) -> Result<(), Error> {
        let shared = self.net.lock();
        let mut memory = memory(&mut self.tx, self.segment);
        self.exchange
            .forget_peer(&mut memory, &shared.machine, peer.0)
    }

    /// Sends a request when the transaction commits.
    ///
    /// # Errors
    /// [`Error::WindowFull`], [`Error::TooLong`], [`Error::ServerReplaced`], or Vista's when the
    /// segment is full.
    #[inline]
    pub fn send_request(&mut self, peer: Peer, message: &[u8]) -> Result<RequestId, Error> {
        let mut shared = self.net.lock();
        let mut memory = memory(&mut self.tx, self.segment);
        // Nothing is sent here but by a planted fault, for which the simulator is the place.
        let early = (0, &mut Vec::new());
        self.exchange
            .send_request(&mut memory, &mut shared.machine, early, peer.0, message)
    }

    /// Receives the answer to a request of an earlier transaction; waits for it for so long at
    /// most, and says None if it did not come.
    #[inline]
    pub fn receive_response(
        &mut self,
        awaited: &Awaited,
        timeout: Duration,
    ) -> Result<Option<Message>, Error> {
        self.receive_answer(&awaited.0, timeout)
    }

    fn receive_answer(
        &mut self,
        id: &RequestId,
        timeout: Duration,
    ) -> Result<Option<Message>, Error> {
        let (exchange, tx, segment) = (&mut *self.exchange, &mut self.tx, self.segment);
        let found = self.net.wait(timeout, |machine| {
            let mut memory = memory(tx, segment);
            match exchange.receive_response(&mut memory, machine, (0, &mut Vec::new()), id) {
                Ok(Answer::Response(bytes)) => Some(Ok(bytes)),
                Ok(Answer::NotYet) => None,
                Err(error) => Some(Err(error)),
            }
        });
        found.transpose()
    }

    /// Gives a request up. Whether the server has executed it stays unknown.
    pub fn abandon(&mut self, awaited: Awaited) -> Result<(), Error> {
        let shared = self.net.lock();
        let mut memory = memory(&mut self.tx, self.segment);
        self.exchange
            .abandon(&mut memory, &shared.machine, &awaited.0)
    }

    /// Receives a request; waits for one for so long at most, with `Duration::MAX` without an end,
    /// which costs a little less.
    #[inline]
    pub fn receive_request(&mut self, timeout: Duration) -> Result<Option<Request>, Error> {
        let (exchange, tx, segment) = (&mut *self.exchange, &mut self.tx, self.segment);
        let found = self.net.wait(timeout, |machine| {
            if machine.inbox_len() == 0 {
                return None;
            }
            let mut memory = memory(tx, segment);
            exchange.receive_request(&mut memory, machine).transpose()
        });
        Ok(found.transpose()?.map(Request::from))
    }

    /// A request that an earlier transaction has received without answering it; its body is the
    /// program's own since.
    pub fn unanswered(&self, id: RequestId) -> Result<Request, Error> {
        let shared = self.net.lock();
        self.exchange.check_received(&shared.machine, &id)?;
        Ok(Request { id, body: None })
    }

    /// Sends the response to a request when the transaction commits.
    #[inline]
    pub fn send_response(&mut self, request: Request, message: &[u8]) -> Result<(), Error> {
        let mut memory = memory(&mut self.tx, self.segment);
        if let Some(done) = self.exchange.answer_here(&mut memory, &request.id, message) {
            return done.map(drop);
        }
        let mut shared = self.net.lock();
        let early = (0, &mut Vec::new());
        let (exchange, machine) = (&mut *self.exchange, &mut shared.machine);
        exchange.send_response(&mut memory, machine, early, &request.id, message)
    }

    /// Makes everything permanent together: stores, sends and receives. Then the messages leave.
    #[inline]
    pub fn commit(mut self) -> Result<(), Error> {
        let mut shared = self.net.lock();
        let told = shared.told;
        if self.exchange.is_idle(&shared.machine, told) {
            drop(shared);
            return Ok(self.tx.take().expect("open until it ends").commit()?);
        }
        let mut memory = memory(&mut self.tx, self.segment);
        self.exchange
            .before_commit(&mut memory, &mut shared.machine, told)?;
        let tx = self.tx.take().expect("open until it ends");
        let done = if self.is_quick {
            tx.commit()
        } else {
            // Nobody waits for a disk that only wants to answer.
            drop(shared);
            let done = tx.commit();
            shared = self.net.lock();
            done
        };
        if let Err(error) = done {
            self.exchange.aborted(&mut shared.machine);
            return Err(error.into());
        }
        let exchange = &mut *self.exchange;
        let now = exchange.commit_time(shared.told, || self.net.now());
        self.net.with_locked(&mut shared, now, |machine, now, out| {
            exchange.committed(machine, now, out);
        });
        Ok(())
    }

    /// Puts everything back. Dropping does the same and keeps quiet about errors.
    pub fn abort(mut self) -> Result<(), Error> {
        let tx = self.tx.take().expect("open until it ends");
        let aborted = tx.abort();
        self.exchange.aborted(&mut self.net.lock().machine);
        Ok(aborted?)
    }
}

fn memory<'t, 'g, B: Backend>(
    tx: &'t mut Option<vista::Transaction<'g, B>>,
    segment: Segment,
) -> InTransaction<'t, 'g, B> {
    InTransaction {
        tx: tx.as_mut().expect("open until it ends"),
        segment,
    }
}

/// The program's own memory is changed as in any transaction of Vista.
impl<'g, B: Backend> Deref for Transaction<'g, B> {
    type Target = vista::Transaction<'g, B>;

    fn deref(&self) -> &vista::Transaction<'g, B> {
        self.tx.as_ref().expect("open until it ends")
    }
}

impl<'g, B: Backend> DerefMut for Transaction<'g, B> {
    fn deref_mut(&mut self) -> &mut vista::Transaction<'g, B> {
        self.tx.as_mut().expect("open until it ends")
    }
}

impl<B: Backend> Drop for Transaction<'_, B> {
    fn drop(&mut self) {
        if let Some(tx) = self.tx.take() {
            drop(tx);
            self.exchange.aborted(&mut self.net.lock().machine);
        }
    }
}

impl Waiter {
    pub fn select(&self, answers: &[Awaited], timeout: Duration) -> Ready {
        select(&self.net, answers, timeout)
    }
}

fn select(net: &Net, answers: &[Awaited], timeout: Duration) -> Ready {
    let found = net.wait(timeout, |machine| {
        let there = |Awaited(id): &Awaited| {
            let link = machine.link(id.link as u32);
            // One that will never come is for `receive_response` to say.
            link.is_none_or(|link| {
                link.answer(id.seq).is_some()
                    || link.replaced.is_some()
                    || !link.is_unsettled(id.seq)
            })
        };
        if let Some(index) = answers.iter().position(there) {
            return Some(Ready::Response(index));
        }
        (machine.inbox_len() > 0).then_some(Ready::Request)
    });
    found.unwrap_or(Ready::Nothing)
}

impl From<Inbound> for Request {
    fn from(inbound: Inbound) -> Request {
        Request {
            id: inbound.id(),
            body: Some(inbound.bytes),
        }
    }
}

impl Request {
    /// Its name, the same on both sides.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// What the client has sent; empty for one that an earlier transaction has received.
    pub fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or(&[])
    }

    /// The same, to be kept while the request is answered.
    pub fn take_body(&mut self) -> Message {
        self.body.take().unwrap_or_default()
    }
}

impl Awaited {
    pub fn id(&self) -> RequestId {
        self.0
    }
}

impl Peer {
    pub fn number(self) -> u32 {
        self.0
    }

    /// A peer from the number that was kept; whether there is one shows when it is used.
    pub fn from_number(number: u32) -> Peer {
        Peer(number)
    }
}
