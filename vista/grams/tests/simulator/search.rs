//! Every run of a small system within bounds on what goes wrong: each order of packets, each loss
//! and repetition, each death after any store of any transaction.
//!
//! A state is two or more parties and the packets under way, without the times: a timer may go off
//! whenever one is armed, but while packets are under way that counts as a repetition, since it is
//! what makes one. States are visited once. At the end each state must have a way to the goal.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use crate::party::{Packet, Party, Step};

/// What may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    pub losses: u8,
    pub repeats: u8,
    pub deaths: u8,
    pub aborts: u8,
    pub forgets: u8,
}

#[derive(Clone)]
pub struct World {
    pub parties: Vec<Party>,
    pub network: BTreeSet<Packet>,
    pub budget: Budget,
}

#[derive(Default, Debug)]
pub struct Findings {
    pub states: usize,
    pub transitions: usize,
    /// Stores after which a party died in a transaction.
    pub death_points: usize,
    pub goals: usize,
    /// The first state that breaks a promise, and which.
    pub broken: Option<String>,
}

/// What a death at any store of a step leaves: few different parties.
type Deaths = Rc<Vec<(Party, Vec<Packet>)>>;

pub struct Search {
    limit: usize,
    seen: HashMap<u64, u32>,
    edges: Vec<(u32, u32)>,
    goals: Vec<u32>,
    deaths: HashMap<(u64, usize, Step), Deaths>,
    findings: Findings,
}

/// Visits everything that can come of a world; more than `limit` states are an error.
pub fn search(world: World, limit: usize) -> Findings {
    let mut search = Search {
        limit,
        seen: HashMap::new(),
        edges: Vec::new(),
        goals: Vec::new(),
        deaths: HashMap::new(),
        findings: Findings::default(),
    };
    search.seen.insert(world.digest(), 0);
    let mut stack = vec![(0, world)];
    while let Some((number, world)) = stack.pop() {
        if let Err(broken) = world.check() {
            search.findings.broken = Some(broken);
            break;
        }
        if world.is_goal() {
            search.goals.push(number);
        }
        for next in search.successors(&world) {
            let digest = next.digest();
            let fresh = search.seen.len() as u32;
            let to = *search.seen.entry(digest).or_insert(fresh);
            search.edges.push((number, to));
            if to == fresh {
                stack.push((to, next));
            }
        }
        assert!(
            search.seen.len() <= search.limit,
            "more states than expected"
        );
    }
    search.finish()
}

impl Search {
    fn finish(mut self) -> Findings {
        self.findings.states = self.seen.len();
        self.findings.transitions = self.edges.len();
        self.findings.goals = self.goals.len();
        if self.findings.broken.is_none() {
            let stuck = self.stuck();
            if stuck > 0 {
                self.findings.broken = Some(format!("{stuck} states have no way to the goal"));
            }
        }
        self.findings
    }

    /// States from which the goal cannot be reached.
    fn stuck(&self) -> usize {
        let count = self.seen.len();
        let mut into = vec![Vec::new(); count];
        for &(from, to) in &self.edges {
            into[to as usize].push(from);
        }
        let mut reaches = vec![false; count];
        let mut stack = self.goals.clone();
        while let Some(state) = stack.pop() {
            if !std::mem::replace(&mut reaches[state as usize], true) {
                stack.extend(&into[state as usize]);
            }
        }
        reaches.iter().filter(|&&reaches| !reaches).count()
    }

    fn successors(&mut self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for index in 0..world.parties.len() {
            self.of_party(world, index, &mut next);
        }
        for packet in &world.network {
            let mut delivered = world.clone();
            delivered.network.remove(packet);
            if world.budget.losses > 0 {
                let mut lost = delivered.clone();
                lost.budget.losses -= 1;
                next.push(lost);
            }
            let to = delivered
                .parties
                .iter()
                .position(|party| party.address() == packet.to);
            let Some(to) = to else {
                next.push(delivered);
                continue;
            };
            let answers = delivered.parties[to].deliver(packet);
            delivered.network.extend(answers);
            if world.budget.repeats > 0 {
                let mut repeated = delivered.clone();
                repeated.budget.repeats -= 1;
                repeated.network.insert(packet.clone());
                next.push(repeated);
            }
            next.push(delivered);
        }
        next
    }

    fn of_party(&mut self, world: &World, index: usize, next: &mut Vec<World>) {
        let party = &world.parties[index];
        let mut steps = party.steps();
        if world.budget.forgets > 0 {
            steps.push(Step::Forget);
        }
        for step in steps {
            let mut done = world.clone();
            let packets = done.parties[index].run(step, None, false).packets;
            done.network.extend(packets);
            if step == Step::Forget {
                done.budget.forgets -= 1;
            }
            next.push(done);
            if world.budget.aborts > 0 && step != Step::Forget {
                let mut aborted = world.clone();
                aborted.budget.aborts -= 1;
                let packets = aborted.parties[index].run(step, None, true).packets;
                aborted.network.extend(packets);
                next.push(aborted);
            }
            if world.budget.deaths > 0 {
                for (party, packets) in self.deaths_of(party, index, step).iter() {
                    let mut died = world.clone();
                    died.budget.deaths -= 1;
                    died.parties[index] = party.clone();
                    died.network.extend(packets.iter().cloned());
                    next.push(died);
                }
            }
        }
        if world.budget.deaths > 0 {
            let mut died = world.clone();
            died.budget.deaths -= 1;
            died.parties[index].restart();
            next.push(died);
        }
        // A timer that goes off too early is what repeats packets.
        let early = !world.network.is_empty();
        if !early || world.budget.repeats > 0 {
            let mut waited = world.clone();
            waited.budget.repeats -= u8::from(early);
            if let Some(packets) = waited.parties[index].wait() {
                waited.network.extend(packets);
                next.push(waited);
            }
        }
    }

    fn deaths_of(&mut self, party: &Party, index: usize, step: Step) -> Deaths {
        let key = (party.digest(), index, step);
        if let Some(deaths) = self.deaths.get(&key) {
            return deaths.clone();
        }
        let stores = party.clone().run(step, None, false).stores;
        let mut different: Vec<(Party, Vec<Packet>)> = Vec::new();
        for point in 0..=stores {
            let mut dead = party.clone();
            let packets = dead.run(step, Some(point), false).packets;
            let same = |(other, others): &(Party, Vec<Packet>)| {
                other.image_digest == dead.image_digest && *others == packets
            };
            if !different.iter().any(same) {
                different.push((dead, packets));
            }
        }
        self.findings.death_points += stores as usize + 1;
        let deaths = Rc::new(different);
        self.deaths.insert(key, deaths.clone());
        deaths
    }
}

impl World {
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.parties
            .iter()
            .for_each(|party| party.digest().hash(&mut hasher));
        (&self.network, self.budget).hash(&mut hasher);
        hasher.finish()
    }

    /// No request is executed twice, and one that was answered was executed.
    fn check(&self) -> Result<(), String> {
        for client in &self.parties {
            let port = client.address().port();
            for (server, address) in client.role.servers.iter().enumerate() {
                let Some(party) = self
                    .parties
                    .iter()
                    .find(|party| party.address() == *address)
                else {
                    continue;
                };
                for number in 1..=client.role.requests {
                    let executed = party.executed(port, number);
                    if executed > 1 {
                        return Err(format!(
                            "request {number} of {port}: executed {executed} times"
                        ));
                    }
                    if executed > 0 && client.asked(server) < number {
                        return Err(format!("request {number} of {port}: executed, never sent"));
                    }
                    if executed < 1 && client.heard(server, number) {
                        return Err(format!(
                            "request {number} of {port}: answered, not executed"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// All is done, nothing is under way, and nobody waits for anything.
    fn is_goal(&self) -> bool {
        self.network.is_empty()
            && self.parties.iter().all(|party| {
                let mut party = party.clone();
                party.is_done() && party.steps().is_empty() && party.wait().is_none()
            })
    }
}
