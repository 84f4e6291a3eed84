//! The recoverable lock manager of the thesis' figure 4.4, with clients that are killed as well.
//!
//! A client that dies finds in its memory where it was: PENDING means that its request is
//! committed, and so will be answered; it waits for the answer in another transaction. The server
//! needs nothing to recover. A lock that is held makes the request wait in the server's memory,
//! unanswered, until a release answers it in a transaction of its own.

use std::time::Duration;

use vista::persistent;
use vistagrams::{Error, Peer, RequestId};

use crate::counted::{Counted, in_order};
use crate::party::{Arguments, Out, Party};

const LOCKS: usize = 4;
const CLIENTS: usize = 16;

const IDLE: u64 = 0;
const PENDING: u64 = 1;
const LOCKED: u64 = 2;
const RELEASING: u64 = 3;

persistent! {
    pub struct Server {
        /// Client of each lock; 0 if it is free.
        holders: [u64; LOCKS],
        /// Each client's request that waits, and for which lock.
        waits: [RequestId; CLIENTS],
        wanted: [u64; CLIENTS],
        executed: Counted,
    }

    pub struct Client {
        state: u64,
        lock: u64,
        rounds: u64,
        /// How many requests were sent.
        number: u64,
        peer: u64,
        id: RequestId,
    }
}

/// Grants and takes back locks until it is killed; draining, until nobody asks for half a second.
pub fn serve(arguments: &Arguments) -> Result<String, Error> {
    let mut party: Party<Server> = Party::open(arguments)?;
    let own = party.own;
    let patience = Duration::from_millis(if arguments.drain { 700 } else { 200 });
    loop {
        let mut step = party.begin()?;
        let Some((request, body)) = step.receive_request(patience)? else {
            step.tx.commit()?;
            if arguments.drain {
                break;
            }
            continue;
        };
        let (client, number, what) = in_order(&body)?;
        let mut state = *step.tx.get(own)?;
        state.executed.count(client, number)?;
        let (verb, lock) = (what[0], usize::from(what[1]) % LOCKS);
        match verb {
            b'a' if state.holders[lock] == 0 => {
                state.holders[lock] = u64::from(client);
                step.send(Out::Response(request, number.to_le_bytes().to_vec()));
            }
            b'a' => {
                state.waits[client as usize % CLIENTS] = request.id();
                state.wanted[client as usize % CLIENTS] = lock as u64;
            }
            _ if state.holders[lock] == u64::from(client) => {
                step.send(Out::Response(request, number.to_le_bytes().to_vec()));
                let waits =
                    |c: &usize| !state.waits[*c].is_none() && state.wanted[*c] == lock as u64;
                let next = (0..CLIENTS).find(waits);
                state.holders[lock] = next.unwrap_or(0) as u64;
                if let Some(next) = next {
                    let waiting = step.tx.unanswered(state.waits[next])?;
                    let number = state.executed.of(next as u32);
                    step.send(Out::Response(waiting, number.to_le_bytes().to_vec()));
                    state.waits[next] = RequestId::NONE;
                }
            }
            _ => {
                let holder = state.holders[lock];
                return Err(Error::Settings(format!(
                    "client {client} releases lock {lock}, which {holder} holds"
                )));
            }
        }
        step.commit(|tx, _| Ok(tx.set(own, state)?))?;
    }
    let state = party.state()?;
    let held = state.holders.iter().filter(|&&holder| holder != 0).count();
    Ok(format!("executed {} held {held}", state.executed))
}

/// Takes and releases locks in turn.
pub fn ask(arguments: &Arguments) -> Result<String, Error> {
    let mut party: Party<Client> = Party::open(arguments)?;
    let own = party.own;
    loop {
        let state = party.state()?;
        let begins = state.state == IDLE;
        if begins && (arguments.drain || arguments.rounds > 0 && state.rounds >= arguments.rounds) {
            let Client { number, rounds, .. } = state;
            return Ok(format!("number {number} rounds {rounds}"));
        }
        match state.state {
            IDLE => {
                let lock = u64::from(arguments.number) + state.rounds % 3;
                request(
                    &mut party,
                    arguments,
                    Client {
                        state: PENDING,
                        lock,
                        ..state
                    },
                    b'a',
                )?;
            }
            LOCKED => {
                let Client { lock, rounds, .. } = state;
                party.show(&format!(
                    "client {} holds {lock} in {rounds}",
                    arguments.number
                ));
                request(
                    &mut party,
                    arguments,
                    Client {
                        state: RELEASING,
                        ..state
                    },
                    b'r',
                )?;
            }
            _ => {
                let awaited = party.grams.awaited(state.id)?;
                let mut step = party.begin()?;
                let answer = step.receive_response(&awaited, Duration::from_secs(1))?;
                let Some(answer) = answer else { continue };
                if answer != state.number.to_le_bytes() {
                    return Err(Error::Settings(format!(
                        "request {}: {answer:?}",
                        state.number
                    )));
                }
                let next = match state.state {
                    PENDING => Client {
                        state: LOCKED,
                        ..state
                    },
                    _ => Client {
                        state: IDLE,
                        rounds: state.rounds + 1,
                        ..state
                    },
                };
                step.commit(|tx, _| Ok(tx.set(own, next)?))?;
            }
        }
    }
}

fn request(
    party: &mut Party<Client>,
    arguments: &Arguments,
    mut next: Client,
    verb: u8,
) -> Result<(), Error> {
    let own = party.own;
    let mut step = party.begin()?;
    if next.peer == 0 {
        next.peer = step.tx.peer(arguments.servers[0])?.number().into();
    }
    next.number += 1;
    let what = [verb, next.lock as u8];
    let body = Counted::body(arguments.number, next.number, &what);
    step.send(Out::Request(Peer::from_number(next.peer as u32), body));
    step.commit(|tx, ids| Ok(tx.set(own, Client { id: ids[0], ..next })?))
}
