//! Long random runs of many parties: a network that loses, doubles, delays, reorders and corrupts;
//! deaths after any store; servers that come back elsewhere; messages of many fragments. A run is a
//! value of its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use vistagrams::machine::timer::Nanos;

use crate::party::{Packet, Party, Role, Step};

/// How bad the world is: chances in a thousand.
#[derive(Clone, Copy)]
pub struct Weather {
    pub lost: u64,
    pub doubled: u64,
    pub corrupted: u64,
    pub late: u64,
    /// Of a transaction: that the party dies in it.
    pub dies: u64,
    pub aborts: u64,
    /// Of a death of a server: that it comes back at another address.
    pub moves: u64,
}

#[derive(Default, Debug)]
pub struct Tally {
    pub requests: u64,
    pub deaths: u64,
    pub aborts: u64,
    pub moves: u64,
    pub lost: u64,
    pub doubled: u64,
    pub corrupted: u64,
    pub packets: u64,
}

pub struct Chaos {
    parties: Vec<Party>,
    /// By time of arrival; the number keeps the order of equals.
    network: BinaryHeap<Reverse<(Nanos, u64, Packet)>>,
    weather: Weather,
    random: Random,
    now: Nanos,
    count: u64,
    pub tally: Tally,
}

impl Chaos {
    pub fn new(roles: Vec<Role>, weather: Weather, seed: u64) -> Chaos {
        let parties = roles.into_iter().map(|role| {
            let node = role.settings.listen.port() as u8;
            Party::new(role, node)
        });
        Chaos {
            parties: parties.collect(),
            network: BinaryHeap::new(),
            weather,
            random: Random(seed * 2 + 1),
            now: 0,
            count: 0,
            tally: Tally::default(),
        }
    }

    /// Runs until all was asked and answered and everything is settled.
    pub fn run(&mut self) -> Result<(), String> {
        let steps = 1_000_000;
        for step in 0.. {
            if step > steps {
                return Err(format!("not done after {steps} steps: {:?}", self.tally));
            }
            let worked = (0..self.parties.len()).fold(false, |any, index| self.work(index) | any);
            if !worked && self.parties.iter().all(Party::is_done) {
                break;
            }
            self.pass_time();
        }
        self.check()
    }

    /// A transaction of a party that has one to make; now and then none.
    fn work(&mut self, index: usize) -> bool {
        let steps = self.parties[index].steps();
        if steps.is_empty() || self.random.chance(300) {
            return !steps.is_empty();
        }
        let step = steps[self.random.below(steps.len() as u64) as usize];
        self.parties[index].now = self.now;
        let dies = self.random.chance(self.weather.dies);
        let aborts = !dies && self.random.chance(self.weather.aborts);
        if dies {
            let stores = self.parties[index].clone().run(step, None, false).stores;
            let point = self.random.below(stores + 1);
            self.parties[index].run(step, Some(point), false);
            self.tally.deaths += 1;
            if self.random.chance(self.weather.moves) {
                self.move_server(index);
            }
            return true;
        }
        self.tally.aborts += u64::from(aborts);
        self.tally.requests += u64::from(matches!(step, Step::Hear(..)) && !aborts);
        let packets = self.parties[index].run(step, None, aborts).packets;
        self.send(packets);
        true
    }

    /// It comes back at another port; those that asked the old one are told by itself only.
    fn move_server(&mut self, index: usize) {
        let old = self.parties[index].address();
        let taken = |port: u16| self.parties.iter().any(|p| p.address().port() == port);
        let port = (1000..).find(|port| !taken(*port)).expect("a port");
        let port = port + self.random.below(1000) as u16 * 14;
        if !self.parties[index].role.servers.is_empty() {
            return;
        }
        let new = SocketAddr::new(old.ip(), port);
        self.parties[index].restart_at(new);
        self.tally.moves += 1;
        // Whom it has never heard it cannot tell; those are told by their programs.
        let known: Vec<_> = self.parties[index]
            .machine
            .clients()
            .map(|(key, _)| *key)
            .collect();
        let servers = self.servers();
        let number = servers
            .iter()
            .position(|&server| server == index)
            .unwrap_or(0);
        for client in self
            .parties
            .iter_mut()
            .filter(|party| !party.role.servers.is_empty())
        {
            let link = client.link_of(number);
            if !known.contains(&(client.machine.node(), link)) {
                let mut out = Vec::new();
                client.machine.peer_moved(self.now, link, new, &mut out);
                let mut role = (*client.role).clone();
                role.servers[number] = new;
                client.role = std::rc::Rc::new(role);
            }
        }
    }

    /// Servers keep their places in the list when they move.
    fn servers(&self) -> Vec<usize> {
        let places = 0..self.parties.len();
        places
            .filter(|&index| self.parties[index].role.servers.is_empty())
            .collect()
    }

    fn send(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            self.tally.packets += 1;
            if self.random.chance(self.weather.lost) {
                self.tally.lost += 1;
                continue;
            }
            let copies = 1 + u64::from(self.random.chance(self.weather.doubled));
            self.tally.doubled += copies - 1;
            for _ in 0..copies {
                let mut packet = packet.clone();
                if self.random.chance(self.weather.corrupted) {
                    self.tally.corrupted += 1;
                    let bit = self.random.below(8 * packet.bytes.len() as u64) as usize;
                    packet.bytes[bit / 8] ^= 1 << (bit % 8);
                }
                let late = self.random.chance(self.weather.late);
                let delay = if late { 3_000_000_000 } else { 200_000 };
                let arrives = self.now + 10_000 + self.random.below(delay);
                self.count += 1;
                self.network.push(Reverse((arrives, self.count, packet)));
            }
        }
    }

    /// To the next arrival or wake-up.
    fn pass_time(&mut self) {
        let arrival = self.network.peek().map(|Reverse((at, _, _))| *at);
        let wakes = self
            .parties
            .iter()
            .filter_map(|party| party.machine.next_due());
        let Some(next) = wakes.chain(arrival).min() else {
            return;
        };
        self.now = self.now.max(next);
        while let Some(Reverse((at, _, _))) = self.network.peek() {
            if *at > self.now {
                break;
            }
            let Some(Reverse((_, _, packet))) = self.network.pop() else {
                break;
            };
            let to = self
                .parties
                .iter()
                .position(|party| party.address() == packet.to);
            if let Some(to) = to {
                self.parties[to].now = self.now;
                let answers = self.parties[to].deliver(&packet);
                self.send(answers);
            }
        }
        for index in 0..self.parties.len() {
            let packets = self.parties[index].wait_until(self.now);
            self.send(packets);
        }
    }

    /// Each request was executed once, and once all is quiet the tables hold what they must only.
    fn check(&mut self) -> Result<(), String> {
        let servers = self.servers();
        for client in &self.parties {
            let port = client.address().port();
            for &server in servers.iter().take(client.role.servers.len()) {
                let party = &self.parties[server];
                for number in 1..=client.role.requests {
                    let times = party.executed(port, number);
                    if times != 1 {
                        return Err(format!(
                            "request {number} of {port}: executed {times} times"
                        ));
                    }
                }
            }
        }
        self.weather = Weather {
            lost: 0,
            doubled: 0,
            corrupted: 0,
            late: 0,
            dies: 0,
            aborts: 0,
            moves: 0,
        };
        for _ in 0..100_000 {
            let quiet = self.network.is_empty()
                && self
                    .parties
                    .iter()
                    .all(|party| party.machine.next_due().is_none());
            if quiet {
                break;
            }
            self.pass_time();
        }
        for index in 0..self.parties.len() {
            self.parties[index].now = self.now;
            self.parties[index].run(Step::Forget, None, false);
            let (_, _, requests, responses) = self.parties[index].held();
            if requests + responses > 0 {
                return Err(format!(
                    "party {index} keeps {requests} and {responses} for ever"
                ));
            }
        }
        Ok(())
    }
}

/// A small generator, so that a failing run is the same one tomorrow.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed ^ mixed >> 29) % limit.max(1)
    }

    fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.below(1000) < in_a_thousand
    }
}
