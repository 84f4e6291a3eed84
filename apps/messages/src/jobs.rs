//! A queue of jobs with workers: each job is done once, and its result counted once.
//!
//! A worker asks for a job and, in a later transaction, tells its result; both are requests. What it
//! was given lies in its memory, so a worker that dies does the same job again and tells it once.

use std::time::Duration;

use vista::persistent;
use vistagrams::{Error, Peer, RequestId};

use crate::counted::{Counted, in_order};
use crate::party::{Arguments, Out, Party};

const WORKERS: usize = 16;

persistent! {
    pub struct Queue {
        /// Jobs handed out, results received, and their sum.
        given: u64,
        done: u64,
        sum: u64,
        /// What each worker has; 0 nothing.
        at_work: [u64; WORKERS],
        executed: Counted,
    }

    pub struct Worker {
        /// 0: nothing; 1: has asked; 2: has a job; 3: has told its result.
        state: u64,
        job: u64,
        number: u64,
        peer: u64,
        id: RequestId,
    }
}

/// What a job is: some arithmetic whose result shows whether it was this job.
fn work(job: u64) -> u64 {
    (0..100).fold(job, |x, round| {
        x.rotate_left(7) ^ x.wrapping_mul(0x9e37_79b9) ^ round
    })
}

pub fn serve(arguments: &Arguments) -> Result<String, Error> {
    let mut party: Party<Queue> = Party::open(arguments)?;
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
        let (worker, number, what) = in_order(&body)?;
        let mut state = *step.tx.get(own)?;
        state.executed.count(worker, number)?;
        let place = worker as usize % WORKERS;
        let mut answer = number.to_le_bytes().to_vec();
        match what.strip_prefix(b"result  ") {
            None => {
                state.given += 1;
                state.at_work[place] = state.given;
                answer.extend_from_slice(&state.given.to_le_bytes());
            }
            Some(result) => {
                let job = std::mem::take(&mut state.at_work[place]);
                let result = result.try_into().map(u64::from_le_bytes).ok();
                if job == 0 || result != Some(work(job)) {
                    return Err(Error::Settings(format!(
                        "worker {worker}, job {job}: {result:?}"
                    )));
                }
                state.done += 1;
                state.sum = state.sum.wrapping_add(work(job));
            }
        }
        step.send(Out::Response(request, answer));
        step.commit(|tx, _| Ok(tx.set(own, state)?))?;
    }
    let state = party.state()?;
    let at_work = state.at_work.iter().filter(|&&job| job != 0);
    let expected = (1..=state.given).fold(0_u64, |sum, job| sum.wrapping_add(work(job)));
    let missing = at_work
        .clone()
        .fold(0_u64, |sum, &job| sum.wrapping_add(work(job)));
    if state.sum != expected.wrapping_sub(missing)
        || state.given - state.done != at_work.count() as u64
    {
        return Err(Error::Settings(
            "EXACTLY ONCE IS BROKEN: the sum of results is wrong".into(),
        ));
    }
    Ok(format!(
        "given {} done {} executed {}",
        state.given, state.done, state.executed
    ))
}

pub fn ask(arguments: &Arguments) -> Result<String, Error> {
    let mut party: Party<Worker> = Party::open(arguments)?;
    let own = party.own;
    loop {
        let state = party.state()?;
        let finished = arguments.rounds > 0 && state.number >= 2 * arguments.rounds;
        match state.state {
            0 if arguments.drain || finished => return Ok(format!("number {}", state.number)),
            0 => request(
                &mut party,
                arguments,
                Worker { state: 1, ..state },
                b"job please",
            )?,
            2 => {
                let mut what = b"result  ".to_vec();
                what.extend_from_slice(&work(state.job).to_le_bytes());
                request(&mut party, arguments, Worker { state: 3, ..state }, &what)?;
            }
            _ => {
                let awaited = party.grams.awaited(state.id)?;
                let mut step = party.begin()?;
                let answer = step.receive_response(&awaited, Duration::from_secs(1))?;
                let Some(answer) = answer else { continue };
                let (number, job) = answer.split_at_checked(8).unwrap_or((&answer, &[]));
                if number != state.number.to_le_bytes() {
                    return Err(Error::Settings(format!(
                        "request {}: {answer:?}",
                        state.number
                    )));
                }
                let next = match state.state {
                    1 => Worker {
                        state: 2,
                        job: u64::from_le_bytes(job.try_into().unwrap_or_default()),
                        ..state
                    },
                    _ => Worker { state: 0, ..state },
                };
                step.commit(|tx, _| Ok(tx.set(own, next)?))?;
            }
        }
    }
}

fn request(
    party: &mut Party<Worker>,
    arguments: &Arguments,
    mut next: Worker,
    what: &[u8],
) -> Result<(), Error> {
    let own = party.own;
    let mut step = party.begin()?;
    if next.peer == 0 {
        next.peer = step.tx.peer(arguments.servers[0])?.number().into();
    }
    next.number += 1;
    let body = Counted::body(arguments.number, next.number, what);
    step.send(Out::Request(Peer::from_number(next.peer as u32), body));
    step.commit(|tx, ids| Ok(tx.set(own, Worker { id: ids[0], ..next })?))
}
