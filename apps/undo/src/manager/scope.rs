//! Cycles that are limited to a part of the service: whether that part can be taken back alone.

use super::{Manager, decode};
use crate::timeline::{Lsn, Place, View};
use crate::verb::{Service, Verb};
use crate::{Error, Result};

impl<S: Service> Manager<S> {
    /// Looks, before a limited cycle begins, at the part itself and at all that a rewind to this
    /// snapshot would replay of it.
    pub(super) fn check_scope(&self, scope: &str, from: Place, view: &View) -> Result<()> {
        if self.service.scope_paths(scope).is_none() {
            return Err(no_such_part(scope));
        }
        let to = Place {
            lsn: self.timeline.last(),
            inserted: u64::MAX,
        };
        let mut concerned = self.service.has_scope(scope);
        for lsn in self.timeline.order(from, to, view) {
            let Some(recorded) = self.timeline.read(lsn, view)? else {
                continue;
            };
            let verb: S::Verb = decode(lsn, &recorded.verb)?;
            alone(&verb, lsn, scope)?;
            concerned |= verb.within(scope).is_some();
        }
        match concerned {
            true => Ok(()),
            false => Err(no_such_part(scope)),
        }
    }
}

/// An error, if the part of this verb within the scope cannot be replayed alone.
pub(super) fn alone<V: Verb>(verb: &V, lsn: Lsn, scope: &str) -> Result<()> {
    match verb.reaches_outside(scope) {
        None => Ok(()),
        Some(wider) => {
            let line = verb.about().line;
            let what = format!("LSN {lsn} is not of {scope:?} alone: {line}");
            Err(Error::new(format!("scope {scope:?}"), "rewind", what)
                .advise(format!("rewind {wider:?}, or all")))
        }
    }
}

fn no_such_part(scope: &str) -> Error {
    let what = "there is no such part of the service";
    Error::new(format!("scope {scope:?}"), "rewind", what)
        .advise("name one that exists, such as a user or, for mail, USER/FOLDER; or rewind all")
}
