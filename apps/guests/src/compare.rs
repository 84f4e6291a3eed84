//! The judge: two outcomes of one session, and everything by which a person could tell them apart.

use crate::chain::{broken, without_repeats};
use crate::outcome::{FileImage, Outcome};
use crate::session::Stream;
use crate::stream::{difference, repeats_after_restarts};
use serde::Serialize;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Output or files that the native run has are missing.
    Lost,
    /// Output stands there twice.
    Repeated,
    Different,
}

#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub kind: Kind,
    /// What differs: a file, the output, a screen, the exit status.
    pub subject: String,
    pub detail: String,
}

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub differences: Vec<Difference>,
    /// Visible events that were repeated where that is allowed: at a cold restart.
    pub allowed_repeats: usize,
}

impl Verdict {
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }

    fn add(&mut self, kind: Kind, subject: impl Into<String>, detail: impl Into<String>) {
        self.differences.push(Difference {
            kind,
            subject: subject.into(),
            detail: detail.into(),
        });
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.kind, self.subject, self.detail)
    }
}

/// Compares a run with the native one. `stream` says whether the output is to be the same byte for byte.
pub fn compare(native: &Outcome, seen: &Outcome, stream: Stream) -> Verdict {
    let mut verdict = Verdict::default();
    if let Some(stuck) = &seen.stuck {
        verdict.add(Kind::Different, "script", stuck);
    }
    if native.status != seen.status {
        verdict.add(
            Kind::Different,
            "exit status",
            format!("native {:?}, seen {:?}", native.status, seen.status),
        );
    }
    match stream {
        Stream::Exact => compare_output(native, seen, &mut verdict),
        Stream::Screens => {}
        Stream::Chained => {
            let (whole, repeats) = without_repeats(&seen.output, &seen.restarts);
            verdict.allowed_repeats = repeats;
            if let Some((kind, detail)) = broken(&whole) {
                verdict.add(kind, "chain", detail);
            }
        }
    }
    if let Some((kind, detail)) = difference(&native.errors, &seen.errors) {
        verdict.add(kind, "standard error", detail);
    }
    // A repeated event leaves its trace on the screen of a program that only appends to it.
    if verdict.allowed_repeats == 0 {
        compare_screens(native, seen, &mut verdict);
    }
    compare_files(native, seen, &mut verdict);
    verdict
}

fn compare_output(native: &Outcome, seen: &Outcome, verdict: &mut Verdict) {
    if !seen.restarts.is_empty()
        && let Some(repeats) = repeats_after_restarts(&native.output, &seen.output, &seen.restarts)
    {
        verdict.allowed_repeats = repeats;
        return;
    }
    if let Some((kind, detail)) = difference(&native.output, &seen.output) {
        let detail = format!("{detail}\n    restarts at {:?}", seen.restarts);
        verdict.add(kind, "output", detail);
    }
}

fn compare_screens(native: &Outcome, seen: &Outcome, verdict: &mut Verdict) {
    for (number, (name, want)) in native.screens.iter().enumerate() {
        let subject = format!("screen {number} ({name})");
        match seen.screens.get(number) {
            None => verdict.add(Kind::Lost, subject, "never reached"),
            Some((_, have)) if have != want => {
                verdict.add(Kind::Different, subject, line_diff(want, have));
            }
            Some(_) => {}
        }
    }
}

fn compare_files(native: &Outcome, seen: &Outcome, verdict: &mut Verdict) {
    for (name, want) in &native.files {
        let subject = format!("file {name}");
        match (want, seen.files.get(name)) {
            (_, None) => verdict.add(Kind::Lost, subject, "is not there"),
            (want, Some(have)) if want == have => {}
            (
                FileImage::File {
                    mode: want_mode,
                    bytes: want,
                },
                Some(FileImage::File {
                    mode: have_mode,
                    bytes: have,
                }),
            ) => match difference(want, have) {
                Some((kind, detail)) => verdict.add(kind, subject, detail),
                None => {
                    let detail = format!("mode {want_mode:o} natively, {have_mode:o} seen");
                    verdict.add(Kind::Different, subject, detail);
                }
            },
            (want, Some(have)) => {
                let detail = format!("natively {}, seen {}", brief(want), brief(have));
                verdict.add(Kind::Different, subject, detail);
            }
        }
    }
    for (name, have) in &seen.files {
        if !native.files.contains_key(name) {
            let detail = format!("is not there natively: {}", brief(have));
            verdict.add(Kind::Different, format!("file {name}"), detail);
        }
    }
}

fn brief(image: &FileImage) -> String {
    match image {
        FileImage::File { mode, bytes } => {
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            format!("a file of {} bytes, mode {mode:o}: {head:?}", bytes.len())
        }
        FileImage::Directory { mode } => format!("a directory, mode {mode:o}"),
        FileImage::Link(target) => format!("a link to {target}"),
        FileImage::Other(what) => format!("a {what}"),
    }
}

/// The lines that differ, the native one above the one that was seen.
fn line_diff(want: &str, have: &str) -> String {
    let (want, have): (Vec<_>, Vec<_>) = (want.lines().collect(), have.lines().collect());
    let mut text = String::new();
    for row in 0..want.len().max(have.len()) {
        let (a, b) = (want.get(row).unwrap_or(&""), have.get(row).unwrap_or(&""));
        if a != b {
            text += &format!("\n    row {row:2} native: {a}\n           seen: {b}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let mut outcome = Outcome {
            status: Some(0),
            output: b"1\n2\n3\n".to_vec(),
            ..Outcome::default()
        };
        outcome.screens.push(("final".into(), "a\nb\n".into()));
        let file = FileImage::File {
            mode: 0o644,
            bytes: b"text".to_vec(),
        };
        outcome.files.insert("f".into(), file);
        outcome
    }

    fn subjects(change: impl FnOnce(&mut Outcome)) -> Vec<(Kind, String)> {
        let mut seen = outcome();
        change(&mut seen);
        let verdict = compare(&outcome(), &seen, Stream::Exact);
        verdict
            .differences
            .into_iter()
            .map(|d| (d.kind, d.subject))
            .collect()
    }

    #[test]
    fn every_part_of_an_outcome_is_looked_at() {
        assert_eq!(subjects(|_| {}), []);
        assert_eq!(
            subjects(|o| o.status = None),
            [(Kind::Different, "exit status".into())]
        );
        assert_eq!(
            subjects(|o| o.output = b"1\n2\n2\n3\n".to_vec()),
            [(Kind::Repeated, "output".into())]
        );
        assert_eq!(
            subjects(|o| o.output.truncate(2)),
            [(Kind::Lost, "output".into())]
        );
        assert_eq!(
            subjects(|o| o.screens[0].1 = "a\nc\n".into()),
            [(Kind::Different, "screen 0 (final)".into())]
        );
        assert_eq!(
            subjects(|o| o.files.clear()),
            [(Kind::Lost, "file f".into())]
        );
        assert_eq!(
            subjects(|o| {
                o.files.insert(
                    "f".into(),
                    FileImage::File {
                        mode: 0o600,
                        bytes: b"text".to_vec(),
                    },
                );
            }),
            [(Kind::Different, "file f".into())]
        );
        assert_eq!(
            subjects(|o| {
                o.files.insert("g".into(), FileImage::Link("f".into()));
            }),
            [(Kind::Different, "file g".into())]
        );
        assert_eq!(
            subjects(|o| o.stuck = Some("step 3".into())),
            [(Kind::Different, "script".into())]
        );
    }

    #[test]
    fn a_cold_restart_may_repeat_one_event() {
        let mut seen = outcome();
        seen.output = b"1\n2\n2\n3\n".to_vec();
        seen.restarts = vec![4];
        let verdict = compare(&outcome(), &seen, Stream::Exact);
        assert!(verdict.agrees(), "{:?}", verdict.differences);
        assert_eq!(verdict.allowed_repeats, 1);
    }
}
