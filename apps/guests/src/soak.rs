//! Kills a session until enough kills are counted, run after run, each with a seed of its own.

use crate::error::Result;
use crate::report::Report;
use crate::runner::{Mode, Options, Reference, run_against};
use crate::session::Session;

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    pub kills: usize,
    /// Give up after so many runs that differ: more would say the same.
    pub failures: usize,
}

/// Runs the session in the mode until the tally is reached, or differs from what was asked for; `progress` sees the sum after each run.
pub fn soak(
    session: &Session,
    mode: Mode,
    tally: Tally,
    options: &Options,
    mut progress: impl FnMut(&Report),
) -> Result<Report> {
    let reference = Reference::record(session)?;
    let mut sum = Report::new(session.name, &mode.to_string(), options.seed);
    let mut fruitless = 0;
    while sum.kills < tally.kills && sum.failed_runs < tally.failures && fruitless < 20 {
        let seed = options.seed.wrapping_add(sum.runs as u64);
        let kills = options.kills.min(tally.kills - sum.kills);
        let options = Options {
            seed,
            kills,
            ..options.clone()
        };
        let mut report = run_against(session, &reference, mode, &options)?;
        for difference in &mut report.differences {
            difference.detail = format!("seed {seed}: {}", difference.detail);
        }
        fruitless = if report.kills == 0 { fruitless + 1 } else { 0 };
        sum.absorb(report);
        progress(&sum);
    }
    if sum.failed_runs < tally.failures {
        sum.expect_kills(tally.kills);
    }
    Ok(sum)
}
