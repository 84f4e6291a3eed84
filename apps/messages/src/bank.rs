//! Two banks, each with a store of its own, that transfer money to each other.
//!
//! The debit and the sending of the credit are one transaction here; the credit and its receipt one
//! there. So money is in the one bank, in the other, or in one message: never lost, never twice.
//! Each is client and server at once, and waits for either by `select`.

use std::time::Duration;

use vista::persistent;
use vistagrams::{Error, Peer, Ready, RequestId};

use crate::counted::{Counted, in_order};
use crate::party::{Arguments, Out, Party};

const BEGINNING: i64 = 1_000_000;

persistent! {
    pub struct Bank {
        opened: u64,
        balance: i64,
        /// Transfers sent, and the amount of the one under way.
        number: u64,
        amount: i64,
        peer: u64,
        id: RequestId,
        executed: Counted,
    }
}

pub fn run(arguments: &Arguments) -> Result<String, Error> {
    let mut party: Party<Bank> = Party::open(arguments)?;
    let own = party.own;
    let mut quiet = 0;
    loop {
        let mut state = party.state()?;
        if state.opened == 0 {
            (state.opened, state.balance) = (1, BEGINNING);
            party.begin()?.commit(|tx, _| Ok(tx.set(own, state)?))?;
        }
        let finished = arguments.rounds > 0 && state.number >= arguments.rounds;
        if state.id.is_none() && !arguments.drain && !finished {
            let mut step = party.begin()?;
            if state.peer == 0 {
                state.peer = step.tx.peer(arguments.servers[0])?.number().into();
            }
            state.number += 1;
            state.amount = (state.number % 97) as i64 + 1;
            state.balance -= state.amount;
            let amount = state.amount.to_le_bytes();
            let body = Counted::body(arguments.number, state.number, &amount);
            step.send(Out::Request(Peer::from_number(state.peer as u32), body));
            step.commit(|tx, ids| {
                Ok(tx.set(
                    own,
                    Bank {
                        id: ids[0],
                        ..state
                    },
                )?)
            })?;
            continue;
        }
        let awaited = match state.id.is_none() {
            true => Vec::new(),
            false => vec![party.grams.awaited(state.id)?],
        };
        match party.grams.select(&awaited, Duration::from_millis(100)) {
            Ready::Request => {
                quiet = 0;
                let mut step = party.begin()?;
                let Some((request, body)) = step.receive_request(Duration::ZERO)? else {
                    continue;
                };
                let (client, number, what) = in_order(&body)?;
                state.executed.count(client, number)?;
                let amount = what.try_into().map(i64::from_le_bytes);
                state.balance += amount.map_err(|_| Error::Settings("not an amount".into()))?;
                step.send(Out::Response(request, number.to_le_bytes().to_vec()));
                step.commit(|tx, _| Ok(tx.set(own, state)?))?;
            }
            Ready::Response(_) => {
                quiet = 0;
                let mut step = party.begin()?;
                let answer = step.receive_response(&awaited[0], Duration::ZERO)?;
                if answer.is_some_and(|answer| answer != state.number.to_le_bytes()) {
                    return Err(Error::Settings(format!("transfer {}: wrong", state.number)));
                }
                (state.id, state.amount) = (RequestId::NONE, 0);
                step.commit(|tx, _| Ok(tx.set(own, state)?))?;
                party.show(&format!(
                    "bank {}: transfer {}",
                    arguments.number, state.number
                ));
            }
            Ready::Nothing => {
                quiet += 1;
                if (arguments.drain || finished) && quiet > 25 && state.id.is_none() {
                    let Bank {
                        balance,
                        number,
                        executed,
                        ..
                    } = state;
                    return Ok(format!(
                        "number {number} balance {balance} executed {executed}"
                    ));
                }
            }
        }
    }
}
