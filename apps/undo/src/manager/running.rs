//! Verbs of users who wait: sequence, execute, record, answer.

use std::fmt;
use std::sync::Arc;

use super::{Manager, encode};
use crate::cycle::Phase;
use crate::timeline::{Body, Head, Lsn};
use crate::verb::{Access, Call, Mode, Outcome, Service, Verb};
use crate::{Error, when};

/// Why a verb was not executed.
#[derive(Debug, Clone)]
pub enum Refused {
    /// An undo cycle is under way, and the verb changes state.
    Cycle(Phase),
    /// It cannot be recorded, so it must not be executed.
    Broken(Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Cycle(_) => f.write_str(
                "the operator is repairing this service; for now it can be read but not changed, \
                 please try again later",
            ),
            Refused::Broken(error) => write!(f, "this service cannot record changes now: {error}"),
        }
    }
}

/// An executed verb.
pub type Executed<S> = (Lsn, Outcome<<S as Service>::Tag>, <S as Service>::Answer);

impl<S: Service> Manager<S> {
    /// Does something with the service that is no verb, while its state stays where it is. `work`
    /// is told which phase the cycle is in.
    pub fn look<T>(&self, work: impl FnOnce(Phase) -> T) -> T {
        let ledger = self.shared();
        work(ledger.phase)
    }

    /// Executes a synchronous verb and records it. It is on stable storage, if it changed state,
    /// when this returns. While a cycle is under way only its reading form is executed.
    pub fn submit(&self, verb: S::Verb) -> Result<Executed<S>, Refused> {
        let time_us = when::now_us();
        let ledger = self.shared();
        let (verb, mode) = match (ledger.phase, verb.access()) {
            (Phase::Running, _) => (verb, Mode::Normal),
            (_, Access::Reads) => (verb, Mode::ReadOnly),
            (_, Access::ReadsAs(reading)) => (reading, Mode::ReadOnly),
            (phase, Access::Writes) => return Err(Refused::Cycle(phase)),
        };
        let changes = mode == Mode::Normal && verb.is_durable();
        let verb = Arc::new(verb);
        let encoded = encode(&*verb).map_err(Refused::Broken)?;
        let ticket = self.board.enter(verb.clone());
        let lsn = ticket.wait(|| self.timeline.number());

        let body = Body {
            verb: encoded,
            tag: Vec::new(),
        };
        if changes && let Err(error) = self.timeline.append(&Head::Began { lsn, time_us }, &body) {
            return Err(Refused::Broken(error));
        }
        let (outcome, answer) = self.service.execute(&Call {
            verb: &verb,
            lsn,
            time_us,
            mode,
        });
        let recorded = encode(&outcome.tag).and_then(|tag| {
            // A failure that the user sees at once is not part of history (paper, 3.2.2).
            let (head, body) = match (outcome.is_done(), changes) {
                (false, _) => (Head::Voided { lsn }, Body::default()),
                (true, true) => (
                    Head::Ended { lsn },
                    Body {
                        verb: Vec::new(),
                        tag,
                    },
                ),
                (true, false) => (Head::Showed { lsn, time_us }, Body { tag, ..body }),
            };
            self.timeline.append(&head, &body)
        });
        drop(ticket);
        drop(ledger);
        let synced = recorded.and_then(|until| {
            if changes && outcome.is_done() {
                self.timeline.sync(until)
            } else {
                Ok(())
            }
        });
        match synced {
            Ok(()) => Ok((lsn, outcome, answer)),
            Err(error) => Err(Refused::Broken(error)),
        }
    }
}
