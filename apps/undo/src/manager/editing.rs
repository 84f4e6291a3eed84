//! Looking at the timeline, and changing it during a repair.

use serde::{Deserialize, Serialize};

use super::cycling::current;
use super::{Manager, decode, encode};
use crate::cycle::Phase;
use crate::timeline::{Body, Fate, Head, Lsn, Place, View};
use crate::verb::{About, Service, Status, Verb};
use crate::{Error, Result, when};

/// What to look for. An empty field matches everything; text matches a part, in any case.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    pub kind: String,
    pub user: String,
    pub folder: String,
    pub sender: String,
    pub subject: String,
    pub from: Option<Lsn>,
    pub to: Option<Lsn>,
    /// At most so many, the newest ones; 0 for all.
    pub limit: usize,
}

/// A verb of the timeline as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    pub lsn: Lsn,
    pub time_us: u64,
    pub time: String,
    #[serde(flatten)]
    pub about: About,
    /// `done`, `failed`, `dropped`, `changed`, `inserted`, or `squashed`.
    pub state: String,
    pub why: Option<String>,
}

impl<S: Service> Manager<S> {
    /// The view of history that counts now, with the edits of a cycle under way.
    fn view_now(&self) -> View {
        let ledger = self.shared();
        match &ledger.current {
            Some(cycle) => self.view_during(cycle),
            None => ledger.view.clone(),
        }
    }

    /// The verbs of the timeline that match, in the order of history.
    pub fn list(&self, search: &Search) -> Result<Vec<Listed>> {
        let view = self.view_now();
        let from = Place {
            lsn: search.from.unwrap_or(1).saturating_sub(1),
            inserted: u64::MAX,
        };
        let to = Place {
            lsn: search.to.unwrap_or(u64::MAX),
            inserted: u64::MAX,
        };
        let mut listed = Vec::new();
        for lsn in self.timeline.order(from, to, &view).into_iter().rev() {
            let Some(recorded) = self.timeline.read(lsn, &view)? else {
                continue;
            };
            let verb: S::Verb = decode(lsn, &recorded.verb)?;
            let about = verb.about();
            if !matches(&about, search) {
                continue;
            }
            let inserted = self
                .timeline
                .slot(lsn)
                .is_some_and(|slot| matches!(slot.fate, Fate::Inserted { .. }));
            let (state, why) = match recorded.outcome {
                Some((Status::Done, _)) => ("done", None),
                Some((Status::Failed(why), _)) => ("failed", Some(why)),
                None if inserted => ("inserted", None),
                None => ("changed", None),
            };
            listed.push(Listed {
                lsn,
                time_us: recorded.time_us,
                time: when::show(recorded.time_us),
                about,
                state: state.into(),
                why,
            });
            if search.limit != 0 && listed.len() == search.limit {
                break;
            }
        }
        listed.reverse();
        Ok(listed)
    }

    /// One verb, with all that it is made of.
    pub fn show(&self, lsn: Lsn) -> Result<serde_json::Value> {
        let view = self.view_now();
        let Some(recorded) = self.timeline.read(lsn, &view)? else {
            return Err(Error::new(
                format!("LSN {lsn}"),
                "show",
                "there is no verb in history under it",
            )
            .advise("`undo timeline` lists those that there are"));
        };
        let verb: S::Verb = decode(lsn, &recorded.verb)?;
        let tag = match &recorded.outcome {
            Some((status, tag)) => {
                let tag: S::Tag = decode(lsn, tag)?;
                serde_json::json!({ "status": status, "tag": serde_json::to_value(tag).ok() })
            }
            None => serde_json::Value::Null,
        };
        let verb = serde_json::to_value(&verb)
            .map_err(|e| Error::new(format!("verb {lsn}"), "show", e))?;
        Ok(serde_json::json!({
            "lsn": lsn, "time": when::show(recorded.time_us), "verb": verb, "outcome": tag,
        }))
    }

    /// Takes a verb out of history.
    pub fn drop_verb(&self, lsn: Lsn) -> Result<()> {
        self.edit(lsn, |epoch| (Head::Dropped { epoch, lsn }, Body::default()))
    }

    /// Puts another verb in the place of one.
    pub fn change_verb(&self, lsn: Lsn, verb: serde_json::Value) -> Result<()> {
        let verb = self.read_verb(verb)?;
        self.edit(lsn, |epoch| {
            (
                Head::Changed { epoch, lsn },
                Body {
                    verb,
                    tag: Vec::new(),
                },
            )
        })
    }

    /// Puts a new verb behind `after`, which is the point of the rewind or a verb behind it.
    pub fn insert_verb(&self, after: Lsn, verb: serde_json::Value) -> Result<Lsn> {
        let verb = self.read_verb(verb)?;
        let ledger = self.alone();
        let cycle = self.repairing(&ledger)?;
        if after < cycle.target || after > self.timeline.last() {
            return Err(out_of_reach(after, cycle.target));
        }
        let time_us = self
            .timeline
            .slot(after)
            .map_or(when::now_us(), |s| s.time_us);
        let lsn = self.timeline.number();
        let head = Head::Inserted {
            epoch: cycle.epoch,
            lsn,
            after,
            time_us,
        };
        self.timeline.append_synced(
            &head,
            &Body {
                verb,
                tag: Vec::new(),
            },
        )?;
        Ok(lsn)
    }

    /// Takes an edit of this cycle back.
    pub fn unedit(&self, lsn: Lsn) -> Result<()> {
        let ledger = self.alone();
        let epoch = self.repairing(&ledger)?.epoch;
        if !self
            .timeline
            .edits(epoch)
            .iter()
            .any(|(edited, _)| *edited == lsn)
        {
            return Err(Error::new(
                format!("LSN {lsn}"),
                "take an edit back",
                "it was not edited in this cycle",
            ));
        }
        self.timeline
            .append_synced(&Head::Unedited { epoch, lsn }, &Body::default())
    }

    fn edit(&self, lsn: Lsn, record: impl FnOnce(u32) -> (Head, Body)) -> Result<()> {
        let ledger = self.alone();
        let cycle = self.repairing(&ledger)?;
        let inserted_here = self.timeline.slot(lsn).is_some_and(
            |s| matches!(s.fate, Fate::Inserted { epoch, .. } if epoch == cycle.epoch),
        );
        if lsn <= cycle.target && !inserted_here {
            return Err(out_of_reach(lsn, cycle.target));
        }
        if self
            .timeline
            .read(lsn, &self.view_during(&cycle))?
            .is_none()
        {
            return Err(Error::new(
                format!("LSN {lsn}"),
                "edit",
                "there is no verb in history under it",
            )
            .advise("`undo timeline` lists those that there are"));
        }
        let (head, body) = record(cycle.epoch);
        self.timeline.append_synced(&head, &body)
    }

    fn repairing(&self, ledger: &crate::cycle::Ledger) -> Result<crate::Cycle> {
        if ledger.phase != Phase::Repairing {
            return Err(Error::new("timeline", "edit", "no repair is under way")
                .advise("begin with `undo rewind`; history is edited before it is replayed"));
        }
        current(ledger, "edit")
    }

    fn read_verb(&self, verb: serde_json::Value) -> Result<Vec<u8>> {
        let verb: S::Verb = serde_json::from_value(verb).map_err(|e| {
            Error::new("verb", "read from JSON", e)
                .advise("`undo show LSN` prints verbs in the form that is read here")
        })?;
        encode(&verb)
    }
}

fn out_of_reach(lsn: Lsn, target: Lsn) -> Error {
    Error::new(
        format!("LSN {lsn}"),
        "edit",
        format!("the service was rewound to {target} only"),
    )
    .advise(format!("edit what is behind {target}, or rewind further"))
}

fn matches(about: &About, search: &Search) -> bool {
    let has = |text: &str, part: &str| {
        part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
    };
    has(&about.kind, &search.kind)
        && has(&about.user, &search.user)
        && has(&about.folder, &search.folder)
        && has(&about.sender, &search.sender)
        && has(&about.subject, &search.subject)
}
