//! One party: an image, a machine, and a program of which every request counts something up.
//!
//! A request's body says who asked and which of its requests this is. The server counts each in its
//! own persistent memory, in the transaction that receives it, so that a repetition shows; the
//! client notes in its own which answer it has received, in the transaction that receives that.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;

use rio_core::At;
use vista_core::{Core, Geometry, SegmentInfo};
use vistagrams::exchange::{Answer, Exchange};
use vistagrams::machine::timer::Nanos;
use vistagrams::machine::{Body, Chance, Machine, Port, Send};
use vistagrams::memory::Memory;
use vistagrams::tables;
use vistagrams::{NodeId, RequestId, Settings};

use crate::mortal::{Image, Mortal};
pub use crate::words::body;
use crate::words::*;

const OWNER: u32 = 7;

/// A packet under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// How a party is made.
#[derive(Clone)]
pub struct Role {
    pub settings: Settings,
    /// Servers that it asks.
    pub servers: Vec<SocketAddr>,
    /// How many requests to each server.
    pub requests: u64,
    /// How many may be unsettled with each server.
    pub at_once: u64,
    pub body_len: usize,
    /// Receives in one transaction and responds in another.
    pub two_steps: bool,
    pub spans: usize,
}

/// What a transaction of the program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Step {
    /// Sends the next request to that server.
    Ask(usize),
    /// Receives the answer to that server's request in that place.
    Hear(usize, u64),
    /// Receives a request, and responds if that is done in one transaction.
    Serve,
    /// Responds to what an earlier transaction has received.
    Respond,
    /// Forgets idle clients.
    Forget,
}

#[derive(Clone)]
pub struct Party {
    pub role: Rc<Role>,
    pub image: Rc<Image>,
    pub machine: Machine,
    pub now: Nanos,
    pub boots: u64,
    pub image_digest: u64,
}

/// How a step went.
pub struct Done {
    pub packets: Vec<Packet>,
    pub stores: u64,
}

impl Party {
    pub fn new(role: Role, node: u8) -> Party {
        let spans = role.spans;
        let heap = SegmentInfo {
            len: (spans << 16) as u64,
            max_len: (spans << 16) as u64,
            address: 0,
            heap_at: 0,
            meta_at: 0,
            name: *b"vistagrams\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        };
        let data = SegmentInfo {
            len: 8192,
            max_len: 8192,
            heap_at: 8192,
            name: *b"data\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ..heap
        };
        let geometry = Geometry {
            log_len: 16 * 4096,
            owner: OWNER,
        };
        let meta = vista_core::meta_len(&geometry) + vista_core::meta_len_of_heap(&heap);
        let rio = Mortal::new(&vec![vec![0; meta], vec![0; spans << 16], vec![0; 8192]]);
        vista_core::create(&rio, &geometry).unwrap();
        let mut core = Core::open(rio, OWNER).unwrap();
        core.add_segment(heap).unwrap();
        core.add_segment(data).unwrap();
        core.begin().unwrap();
        tables::create(
            &mut memory(&mut core),
            NodeId([node; 16]),
            role.settings.window,
        )
        .unwrap();
        core.end().unwrap();
        Party::start(Rc::new(role), &core.rio().image(), 0)
    }

    /// A start, after whatever there was.
    pub fn start(role: Rc<Role>, image: &Image, now: Nanos) -> Party {
        let mut core = Core::open(Mortal::new(image), OWNER).unwrap();
        let place = load(&mut core).place;
        core.begin().unwrap();
        let address = role.settings.listen;
        let before: SocketAddr = load(&mut core).root.address.into();
        let moved = before != address && before.port() != 0;
        let boots = tables::start(&mut memory(&mut core), place, address, address.port()).unwrap();
        core.end().unwrap();
        let loaded = load(&mut core);
        let chance = Chance {
            seed: boots,
            secret: [boots as u8; 16],
        };
        let settings = role.settings.clone();
        let machine = Machine::new(settings, &loaded, boots, address.port(), moved, chance, now);
        let mut party = Party {
            role,
            image: Rc::new(core.rio().image()),
            machine,
            now,
            boots,
            image_digest: 0,
        };
        party.image_digest = digest_of(&mut core);
        party
    }

    pub fn address(&self) -> SocketAddr {
        self.role.settings.listen
    }

    /// What the program could do now.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for server in 0..self.role.servers.len() {
            let asked = self.asked(server);
            let mut free = false;
            for place in 0..self.role.at_once {
                let (number, id) = self.place(server, place);
                free |= number == 0;
                let link = self.machine.link(id.link as u32);
                if number > 0 && link.is_some_and(|link| link.answer(id.seq).is_some()) {
                    steps.push(Step::Hear(server, place));
                }
            }
            let link = self.machine.link(self.link_of(server));
            let reach = link.map_or(0, |link| {
                link.next_seq - link.unsettled_seqs().next().unwrap_or(link.next_seq)
            });
            if free && asked < self.role.requests && reach < self.machine_window() {
                steps.push(Step::Ask(server));
            }
        }
        if self.machine.inbox_len() > 0 {
            steps.push(Step::Serve);
        }
        if self.role.two_steps && !self.machine.unanswered().is_empty() {
            steps.push(Step::Respond);
        }
        steps
    }

    /// The link to that server, once it was asked; the program keeps its number, since its address
    /// may change.
    pub fn link_of(&self, server: usize) -> u32 {
        word(&self.image[DATA], server * ASKED + LINK) as u32
    }

    fn machine_window(&self) -> u64 {
        self.role.settings.window.into()
    }

    /// Everything that was to be asked was answered.
    pub fn is_done(&self) -> bool {
        (0..self.role.servers.len()).all(|server| {
            let waits = |place| self.place(server, place).0 > 0;
            self.asked(server) == self.role.requests && !(0..self.role.at_once).any(waits)
        })
    }

    /// How often this party has executed a request of that client.
    pub fn executed(&self, client_port: u16, number: u64) -> u8 {
        self.image[DATA][executed_at(client_port, number)]
    }

    /// Whether the answer to that request was received.
    pub fn heard(&self, server: usize, number: u64) -> bool {
        let waits = |place| self.place(server, place).0 == number;
        self.asked(server) >= number && !(0..self.role.at_once).any(waits)
    }

    pub fn asked(&self, server: usize) -> u64 {
        word(&self.image[DATA], server * ASKED)
    }

    pub fn place(&self, server: usize, place: u64) -> (u64, RequestId) {
        let at = place_at(server, place);
        let data = &self.image[DATA];
        let id = RequestId {
            node: data[at + 8..at + 24].try_into().unwrap(),
            link: word(data, at + 24),
            seq: word(data, at + 32),
        };
        (word(data, at), id)
    }

    /// Runs a transaction to its end, or until it dies; `abort` undoes it instead of committing.
    /// A party that died is started again.
    pub fn run(&mut self, step: Step, dies_after: Option<u64>, abort: bool) -> Done {
        let rio = Mortal::new(&self.image);
        rio.dies_after(dies_after.unwrap_or(u64::MAX));
        let mut core = Core::open(rio, OWNER).unwrap();
        let before = core.rio().stores();
        let mut out = Vec::new();
        let ran = self.transact(&mut core, step, abort, &mut out);
        let stores = core.rio().stores() - before;
        if dies_after.is_some() {
            // What left before the death is under way; with a sound library that is nothing.
            out.truncate(ran.unwrap_or(0));
            let image = core.rio().image();
            let packets = self.packets(&out, &image);
            *self = Party::start(self.role.clone(), &image, self.now);
            return Done { packets, stores };
        }
        if let Err(error) = ran {
            panic!("{step:?}: {error}");
        }
        let packets = self.packets(&out, &core.rio().image());
        self.image = Rc::new(core.rio().image());
        self.image_digest = digest_of(&mut core);
        Done { packets, stores }
    }

    /// Says how many packets had left while the party still lived and had not committed.
    fn transact(
        &mut self,
        core: &mut Core<Mortal>,
        step: Step,
        abort: bool,
        out: &mut Vec<Send>,
    ) -> Result<usize, vistagrams::Error> {
        let root = memory(core).root::<tables::Root>()?.unwrap();
        let mut exchange = Exchange::new(root);
        let _ = core.begin();
        let done = self.body(core, &mut exchange, step, out);
        let early = if core.rio().is_alive() { out.len() } else { 0 };
        if abort || done.is_err() {
            let _ = core.abort();
            exchange.aborted(&mut self.machine);
            return done.map(|()| early);
        }
        exchange.before_commit(&mut memory(core), &mut self.machine, self.now)?;
        let _ = core.end();
        exchange.committed(&mut self.machine, self.now, out);
        Ok(early)
    }

    fn body(
        &mut self,
        core: &mut Core<Mortal>,
        exchange: &mut Exchange,
        step: Step,
        out: &mut Vec<Send>,
    ) -> Result<(), vistagrams::Error> {
        let (role, now) = (self.role.clone(), self.now);
        let machine = &mut self.machine;
        match step {
            Step::Ask(server) => {
                let at = At::new(DATA, server * ASKED);
                let link = match get(core, at.plus(LINK))? {
                    0 => exchange.peer(&mut memory(core), machine, role.servers[server])?,
                    link => link as u32,
                };
                put(core, at.plus(LINK), link.into())?;
                let number = get(core, at)? + 1;
                put(core, at, number)?;
                let body = body(role.settings.listen.port(), number, role.body_len);
                let mut memory = memory(core);
                let id = exchange.send_request(&mut memory, machine, (now, out), link, &body)?;
                let free = (0..role.at_once).find(|&place| {
                    let at = At::new(DATA, place_at(server, place));
                    get(core, at).is_ok_and(|number| number == 0)
                });
                let at = At::new(DATA, place_at(server, free.unwrap()));
                put(core, at, number)?;
                put(
                    core,
                    at.plus(8),
                    u64::from_le_bytes(id.node[..8].try_into().unwrap()),
                )?;
                put(
                    core,
                    at.plus(16),
                    u64::from_le_bytes(id.node[8..].try_into().unwrap()),
                )?;
                put(core, at.plus(24), id.link)?;
                put(core, at.plus(32), id.seq)
            }
            Step::Hear(server, place) => {
                let (number, id) = self.place(server, place);
                let machine = &mut self.machine;
                let mut memory = memory(core);
                let answer = exchange.receive_response(&mut memory, machine, (now, out), &id)?;
                let Answer::Response(bytes) = answer else {
                    panic!("the answer was there")
                };
                let mut expected = body(role.settings.listen.port(), number, role.body_len);
                expected.reverse();
                assert!(*bytes == expected, "the answer is that to another request");
                put(core, At::new(DATA, place_at(server, place)), 0)
            }
            Step::Serve => {
                let inbound = exchange.receive_request(&mut memory(core), machine)?;
                let Some(inbound) = inbound else {
                    return Ok(());
                };
                let (port, number) = parse(&inbound.bytes);
                let at = At::new(DATA, executed_at(port, number));
                let count = read(core, at, 1)[0];
                core.write(at, &[count + 1]).map_err(fault)?;
                if !role.two_steps {
                    let mut reply = inbound.bytes.to_vec();
                    reply.reverse();
                    let mut memory = memory(core);
                    let id = inbound.id();
                    exchange.send_response(&mut memory, machine, (now, out), &id, &reply)?;
                }
                Ok(())
            }
            Step::Respond => {
                // What it needs for the answer was to be kept; here the number says it all.
                let id = machine.unanswered()[0];
                let client = id.node[0];
                let number = id.seq;
                let mut reply = body(u16::from(client), number, role.body_len);
                reply.reverse();
                let mut memory = memory(core);
                exchange.send_response(&mut memory, machine, (now, out), &id, &reply)
            }
            Step::Forget => exchange
                .forget_idle(&mut memory(core), machine, u64::MAX / 2)
                .map(|_| ()),
        }
    }

    /// A packet has come.
    pub fn deliver(&mut self, packet: &Packet) -> Vec<Packet> {
        let mut out = Vec::new();
        let (now, from) = (self.now, packet.from);
        let _ = self
            .machine
            .datagram(now, from, Port::Main, &packet.bytes, &mut out);
        self.packets(&out, &self.image.clone())
    }

    /// Time passes until something is sent. None if nothing is waited for.
    pub fn wait(&mut self) -> Option<Vec<Packet>> {
        for _ in 0..1000 {
            self.now = self.now.max(self.machine.next_due()?);
            let mut out = Vec::new();
            self.machine.tick(self.now, &mut out);
            if !out.is_empty() {
                return Some(self.packets(&out, &self.image.clone()));
            }
        }
        panic!("timers without end");
    }

    /// Time passes until then.
    pub fn wait_until(&mut self, now: Nanos) -> Vec<Packet> {
        self.now = now;
        let mut out = Vec::new();
        self.machine.tick(now, &mut out);
        self.packets(&out, &self.image.clone())
    }

    fn packets(&self, out: &[Send], image: &Image) -> Vec<Packet> {
        let packet = |send: &Send| {
            let payload: &[u8] = match &send.body {
                Body::Nothing => &[],
                Body::Made(bytes) => bytes,
                Body::Stored { at, len, .. } => &image[at.window()][at.offset()..][..*len as usize],
            };
            let part = match &send.body {
                Body::Stored { part, .. } => part.as_ref(),
                _ => None,
            };
            let key = self.role.settings.key.as_ref();
            let mut bytes = send.header.seal_summed(payload, part, key).to_vec();
            bytes.extend_from_slice(payload);
            Packet {
                from: self.address(),
                to: send.to,
                bytes,
            }
        };
        out.iter().map(packet).collect()
    }

    pub fn restart(&mut self) {
        *self = Party::start(self.role.clone(), &self.image, self.now);
    }

    /// Restarts at another address.
    pub fn restart_at(&mut self, address: SocketAddr) {
        let mut role = (*self.role).clone();
        role.settings.listen = address;
        *self = Party::start(Rc::new(role), &self.image, self.now);
    }

    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.image_digest, self.boots).hash(&mut hasher);
        self.machine.digest(&mut hasher);
        hasher.finish()
    }

    /// Rows and buffers that the tables hold: links, clients, unsettled requests, kept responses.
    pub fn held(&self) -> (usize, usize, usize, usize) {
        let mut core = Core::open(Mortal::new(&self.image), OWNER).unwrap();
        let loaded = load(&mut core);
        let used = |slots: &[tables::Slot]| slots.iter().filter(|slot| slot.state != 0).count();
        let requests = loaded.links.iter().map(|(_, _, slots)| used(slots)).sum();
        let responses = loaded.clients.iter().map(|(_, _, slots)| used(slots)).sum();
        let mut blocks = 0;
        core.each_block(TABLES, |_, _| blocks += 1).unwrap();
        let rows = loaded.links.len() + loaded.clients.len();
        let buffers = requests
            + loaded
                .clients
                .iter()
                .flat_map(|(_, _, slots)| slots)
                .filter(|slot| slot.state == tables::RESPONDED)
                .count();
        assert_eq!(
            blocks,
            1 + 2 * rows + buffers,
            "a block is lost or freed twice"
        );
        (
            loaded.links.len(),
            loaded.clients.len(),
            requests,
            responses,
        )
    }
}
