//! What a run, or many, proved: counts for people and for scripts.

use crate::compare::{Difference, Kind, Verdict};
use crate::killer::Kills;
use serde::Serialize;
use std::fmt;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub session: String,
    pub mode: String,
    pub seed: u64,
    pub runs: usize,
    /// Runs that somebody could tell from a native one.
    pub failed_runs: usize,
    pub commits: u64,
    /// Results that went to the log, were given back from it, and commits that its bound made.
    pub logged: u64,
    pub replayed: u64,
    pub bound_commits: u64,
    /// Times that `auto` changed the protocol.
    pub protocol_moves: u64,
    pub kills: usize,
    pub recoveries: usize,
    pub lost: usize,
    pub repeated: usize,
    pub different: usize,
    /// Visible events that cold restarts repeated, as they may.
    pub allowed_repeats: usize,
    /// Interrupts typed while nothing ran, and typed again.
    pub retyped: usize,
    pub duration_ms: u64,
    /// From dcrun's own records, else from the kill until `dcrun ps` showed the run again.
    pub recovery_us: Vec<u64>,
    pub differences: Vec<Difference>,
    /// Directories that were kept for a look.
    pub kept: Vec<String>,
}

impl Report {
    pub fn new(session: &str, mode: &str, seed: u64) -> Self {
        Report {
            session: session.into(),
            mode: mode.into(),
            seed,
            ..Report::default()
        }
    }

    pub fn agrees(&self) -> bool {
        self.differences.is_empty() && self.kills == self.recoveries
    }

    pub fn add_verdict(&mut self, verdict: Verdict) {
        self.runs += 1;
        self.failed_runs += usize::from(!verdict.agrees());
        self.allowed_repeats += verdict.allowed_repeats;
        for difference in verdict.differences {
            match difference.kind {
                Kind::Lost => self.lost += 1,
                Kind::Repeated => self.repeated += 1,
                Kind::Different => self.different += 1,
            }
            self.differences.push(difference);
        }
    }

    pub fn add_kills(&mut self, kills: Kills) {
        self.kills += kills.kills;
        self.recoveries += kills.recoveries;
        self.recovery_us.extend(kills.seen_us);
        for detail in kills.trouble {
            self.different += 1;
            let subject = "recovery".into();
            self.differences.push(Difference {
                kind: Kind::Different,
                subject,
                detail,
            });
        }
    }

    /// Fewer kills than nine tenths of what was asked for prove less than they seem to.
    pub fn expect_kills(&mut self, asked: usize) {
        if self.kills * 10 < asked * 9 {
            self.different += 1;
            self.differences.push(Difference {
                kind: Kind::Different,
                subject: "kills".into(),
                detail: format!("only {} of {asked} came", self.kills),
            });
        }
    }

    /// Runs that were to be killed, and were not, prove nothing.
    pub fn expect_a_kill(&mut self) {
        if self.kills == 0 {
            self.different += 1;
            self.differences.push(Difference {
                kind: Kind::Different,
                subject: "kills".into(),
                detail: format!("none came in {} runs: shorten the gap", self.runs),
            });
        }
    }

    /// Joins the counts of another report on the same session and mode.
    pub fn absorb(&mut self, other: Report) {
        self.runs += other.runs;
        self.failed_runs += other.failed_runs;
        self.commits += other.commits;
        self.logged += other.logged;
        self.replayed += other.replayed;
        self.bound_commits += other.bound_commits;
        self.protocol_moves += other.protocol_moves;
        self.kills += other.kills;
        self.recoveries += other.recoveries;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.different += other.different;
        self.allowed_repeats += other.allowed_repeats;
        self.retyped += other.retyped;
        self.duration_ms += other.duration_ms;
        self.recovery_us.extend(other.recovery_us);
        self.differences.extend(other.differences);
        self.kept.extend(other.kept);
    }

    /// The recovery time that this share of the recoveries did not exceed.
    pub fn recovery_percentile_us(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.recovery_us.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted
            .get(
                (sorted.len() * percent)
                    .div_ceil(100)
                    .saturating_sub(1)
                    .min(last),
            )
            .copied()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} kills, {} recoveries, {} lost, {} repeated, {} different",
            self.session, self.kills, self.recoveries, self.lost, self.repeated, self.different
        )?;
        if let (Some(p50), Some(p99)) = (
            self.recovery_percentile_us(50),
            self.recovery_percentile_us(99),
        ) {
            let (p50_ms, p99_ms) = (p50 as f64 / 1000.0, p99 as f64 / 1000.0);
            write!(f, "; recovery p50 {p50_ms:.1} ms p99 {p99_ms:.1} ms")?;
        }
        write!(
            f,
            " ({}, {} runs, {} commits",
            self.mode, self.runs, self.commits
        )?;
        if self.logged > 0 {
            write!(f, ", {} logged, {} replayed", self.logged, self.replayed)?;
        }
        if self.protocol_moves > 0 {
            write!(f, ", {} changes of protocol", self.protocol_moves)?;
        }
        if self.allowed_repeats > 0 {
            write!(f, ", {} repeats at cold restarts", self.allowed_repeats)?;
        }
        if self.retyped > 0 {
            write!(f, ", {} ^C typed again", self.retyped)?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_a_soak_prints() {
        let mut report = Report::new("nvi", "kill-worker", 1);
        report.add_kills(Kills {
            kills: 100,
            recoveries: 100,
            seen_us: (1..=100).map(|n| n * 100).collect(),
            trouble: Vec::new(),
        });
        report.add_verdict(Verdict::default());
        assert_eq!(
            report.to_string(),
            "nvi: 100 kills, 100 recoveries, 0 lost, 0 repeated, 0 different; \
             recovery p50 5.0 ms p99 9.9 ms (kill-worker, 1 runs, 0 commits)"
        );
        assert!(report.agrees());
    }

    #[test]
    fn runs_without_a_kill_do_not_agree() {
        let mut report = Report::new("nvi", "kill-all", 1);
        report.add_verdict(Verdict::default());
        report.expect_a_kill();
        assert!(!report.agrees());
        report = Report::new("nvi", "kill-all", 1);
        report.kills = 1;
        report.recoveries = 1;
        report.expect_a_kill();
        assert!(report.agrees());
    }
}
