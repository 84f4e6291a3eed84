//! The protocol as a machine: it is told what happened and when, and answers what to send.
//!
//! It has no clock, no socket and no persistent memory of its own, so the simulator drives it as
//! the sockets do. What it holds is of two kinds: an index of what is committed, which a start
//! reads from the tables, and what may be lost, because the other side keeps it until a commit
//! here: requests and responses that have arrived, fragments, streams, round-trip times.
//!
//! - [`link`]: the client's half, one for each server; `request`: what it sends; `resend`: what time
//!   makes it do;
//! - [`client`]: the server's half, one for each client; `respond`: what it sends; `clients`: all of
//!   them; `admit`: who becomes one;
//! - [`commit`]: what a transaction has done, told once it is durable;
//! - [`timer`]: time, and who wants to be woken.

mod admit;
pub mod client;
mod clients;
pub mod commit;
mod grant;
pub mod link;
mod request;
mod resend;
mod respond;
pub mod seqs;
pub mod timer;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rio_core::At;

use crate::landing::{Landing, Payload};
use crate::message::Message;
use crate::packet::{self, Header, Kind, Rejected};
use crate::settings::Settings;
use crate::sum::Part;
use crate::tables::{self, Loaded};
use crate::{NodeId, Plant, RequestId};

use client::{Client, Served};
use clients::{Clients, Secret};
use grant::Grants;
use link::Link;
use timer::{Nanos, Random, Timer, Timers};

/// Which of the two local sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    Main,
    /// For retransmitted packets to a server.
    Resend,
}

/// A packet to be sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Send {
    pub to: SocketAddr,
    pub from: Port,
    pub header: Header,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Body {
    Nothing,
    Made(Vec<u8>),
    /// Bytes of a committed buffer, which stay as they are while the machine knows of them.
    Stored {
        at: At,
        len: u32,
        /// Of their sum, while it is known.
        part: Option<Part>,
    },
}

/// One client's link, as its server names it.
pub type ClientKey = (NodeId, u32);

/// A request that has arrived and waits for a transaction to receive it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inbound {
    pub client: ClientKey,
    pub seq: u64,
    pub bytes: Message,
}

impl Inbound {
    pub fn id(&self) -> RequestId {
        RequestId {
            node: self.client.0.0,
            link: self.client.1.into(),
            seq: self.seq,
        }
    }
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub packets_in: u64,
    pub packets_out: u64,
    /// Sent again because nothing was heard.
    pub resent: u64,
    /// Requests and responses that came again and were dropped.
    pub duplicates: u64,
    /// Not whole, not ours, forged, or of a conversation that is over.
    pub rejected: u64,
    /// Dropped because there was no room; the other side sends them again.
    pub no_room: u64,
}

#[derive(Clone)]
pub struct Machine {
    pub(crate) settings: Settings,
    pub(crate) node: NodeId,
    boots: u64,
    pub(crate) window: u32,
    resend_port: u16,
    links: BTreeMap<u32, Link>,
    /// The highest number that a link has had.
    last_link: u32,
    clients: Clients,
    inbox: VecDeque<Inbound>,
    inbox_bytes: usize,
    assembly_bytes: usize,
    grants: Grants,
    timers: Timers,
    /// Clients whose rows lag behind what was heard of them.
    unsettled: Vec<ClientKey>,
    /// So do those of some links.
    links_lag: bool,
    /// When idle clients were looked for.
    forgot: Nanos,
    random: Random,
    counters: Counters,
}

/// What a machine must be given that is chance.
#[derive(Clone, Copy)]
pub struct Chance {
    pub seed: u64,
    pub secret: [u8; 16],
}

/// What the halves use of the machine beside themselves.
struct Context<'m> {
    settings: &'m Settings,
    node: NodeId,
    now: Nanos,
    resend_port: u16,
    random: &'m mut Random,
    timers: &'m mut Timers,
    counters: &'m mut Counters,
    assembly_bytes: &'m mut usize,
    out: &'m mut Vec<Send>,
}

/// Splits a machine into one of its maps and the rest.
macro_rules! context {
    ($machine:ident, $now:expr, $out:expr) => {
        Context {
            settings: &$machine.settings,
            node: $machine.node,
            now: $now,
            resend_port: $machine.resend_port,
            random: &mut $machine.random,
            timers: &mut $machine.timers,
            counters: &mut $machine.counters,
            assembly_bytes: &mut $machine.assembly_bytes,
            out: $out,
        }
    };
}
use context;

impl Machine {
    /// A machine for what a start found: whatever is committed and unsettled is due at once.
    pub fn new(
        settings: Settings,
        loaded: &Loaded,
        boots: u64,
        resend_port: u16,
        moved: bool,
        chance: Chance,
        now: Nanos,
    ) -> Machine {
        let root = &loaded.root;
        let mut machine = Machine {
            node: NodeId(root.node),
            boots,
            window: root.window,
            resend_port,
            links: BTreeMap::new(),
            last_link: root.last_link as u32,
            clients: Clients::new(Secret::new(chance.secret)),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            assembly_bytes: 0,
            grants: Grants::new(boots, chance.secret),
            timers: Timers::default(),
            unsettled: Vec::new(),
            links_lag: false,
            forgot: now,
            random: Random::new(chance.seed),
            counters: Counters::default(),
            settings,
        };
        let mut out = Vec::new();
        let plant = machine.settings.plant;
        for (at, row, slots) in &loaded.links {
            let mut link = Link::new(*at, row, boots);
            let slots = slots.iter().filter(|slot| slot.state == tables::SENT);
            for slot in slots.filter(|_| plant != Some(Plant::RequestsForgotten)) {
                let piece = machine.settings.piece();
                link.reload(slot.seq, slot.message_at(), slot.len, piece, now);
            }
            let mut cx = context!(machine, now, &mut out);
            link.arm(&mut cx, now);
            machine.links.insert(row.number as u32, link);
        }
        for (index, (at, row, slots)) in loaded.clients.iter().enumerate() {
            let key = (NodeId(row.node), row.link as u32);
            let mut client = Client::loaded(key, *at, row, now);
            let piece = machine.settings.piece();
            for slot in slots.iter().filter(|slot| slot.state != tables::FREE) {
                client.reload(slot, piece);
            }
            if plant == Some(Plant::ResponsesForgotten) {
                client = Client::fresh(key, row.stream, client.address, now);
            }
            let mut cx = context!(machine, now, &mut out);
            // Spread, because a server may have thousands.
            client.started(&mut cx, moved, 1_000_000 * index as u64);
            machine.clients.insert(client);
        }
        debug_assert!(out.is_empty(), "a start only arms timers");
        machine
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When it wants to be told of the time.
    pub fn next_due(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// A datagram has come. Whatever it is, it is no harm.
    pub fn datagram(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        port: Port,
        datagram: &[u8],
        out: &mut Vec<Send>,
    ) -> Result<(), Rejected> {
        let (head, payload) = packet::split(datagram);
        let opened = Header::open_parts(head, payload, self.settings.key.as_ref());
        self.opened(now, from, port, opened, Payload::Lies(payload), out)
    }

    /// The same, where it has landed.
    pub fn landed(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        port: Port,
        landing: &mut Landing,
        out: &mut Vec<Send>,
    ) -> Result<(), Rejected> {
        let key = self.settings.key.as_ref();
        let (head, payload) = landing.parts();
        let opened = Header::open_parts(head, payload, key);
        self.opened(now, from, port, opened, Payload::Landed(landing), out)
    }

    fn opened(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        port: Port,
        opened: Result<Header, Rejected>,
        payload: Payload<'_>,
        out: &mut Vec<Send>,
    ) -> Result<(), Rejected> {
        self.counters.packets_in += 1;
        let header = opened.inspect_err(|_| self.counters.rejected += 1)?;
        match header.kind.is_for_client() {
            true => self.server_said(now, from, &header, payload, out),
            false => self.client_said(now, from, port, &header, payload, out),
        }
        Ok(())
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Nanos, out: &mut Vec<Send>) {
        while let Some((due, timer)) = self.timers.pop(now) {
            let mut cx = context!(self, now, out);
            match timer {
                Timer::Link(number) => {
                    if let Some(link) = self.links.get_mut(&number) {
                        link.wake(number, due, &mut cx);
                    }
                }
                Timer::Client(key) => {
                    let welcome = self.grants.about(self.node, self.window);
                    if let Some(client) = self.clients.get_mut(&key) {
                        client.wake(due, &welcome, &mut cx);
                    }
                }
            }
        }
    }

    fn server_said(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        header: &Header,
        payload: Payload<'_>,
        out: &mut Vec<Send>,
    ) {
        let mut cx = context!(self, now, out);
        match self.links.get_mut(&header.link) {
            Some(link) if header.client == self.node => {
                link.packet(from, header, payload, &mut cx);
                self.links_lag |= link.row_lags;
            }
            // Asked about a link that was forgotten: whatever it was, it is settled.
            None if header.client == self.node
                && header.kind == Kind::Ping
                && header.link <= self.last_link =>
            {
                cx.counters.packets_out += 1;
                cx.out.push(Send {
                    to: from,
                    from: Port::Main,
                    header: Header {
                        stream: header.stream,
                        low: u64::MAX / 2,
                        ..client::header(Kind::Ack, (self.node, header.link))
                    },
                    body: Body::Nothing,
                });
            }
            _ => cx.counters.rejected += 1,
        }
    }

    // What the calls of a program ask.

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn link(&self, number: u32) -> Option<&Link> {
        self.links.get(&number)
    }

    pub fn links(&self) -> impl Iterator<Item = (u32, &Link)> {
        self.links.iter().map(|(number, link)| (*number, link))
    }

    pub fn client(&self, key: &ClientKey) -> Option<&Client> {
        self.clients.get(key)
    }

    pub fn clients(&self) -> impl Iterator<Item = (&ClientKey, &Client)> {
        self.clients.iter().map(|client| (&client.key, client))
    }

    /// It has no servers.
    pub fn asks_nobody(&self) -> bool {
        self.links.is_empty()
    }

    pub fn inbox_len(&self) -> usize {
        self.inbox.len()
    }

    /// All that decides what it will do, times excepted: for a search that visits each state once.
    pub fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        self.links.values().for_each(|link| link.digest(hasher));
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_unstable_by_key(|client| client.key);
        clients.iter().for_each(|client| client.digest(hasher));
        (&self.inbox, &self.unsettled).hash(hasher);
        self.grants.digest(hasher);
    }

    /// Requests that were received by a commit and are not answered.
    pub fn unanswered(&self) -> Vec<RequestId> {
        let mut found = Vec::new();
        for client in self.clients.iter() {
            let key = client.key;
            for (seq, served) in client.slots.iter() {
                if matches!(served, Served::Received) {
                    found.push(RequestId {
                        node: key.0.0,
                        link: key.1.into(),
                        seq,
                    });
                }
            }
        }
        found.sort_unstable();
        found
    }
}
