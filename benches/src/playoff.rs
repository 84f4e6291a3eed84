//! `auto` against the best fixed protocol, until it is known which of them is faster.
//!
//! Of the fixed protocols the best is the one that has added least by count: the time in commits and
//! syncs that the runtime itself has seen, and its records at their price. (The fastest of seven that
//! scatter would be the luckiest one.) Then both run beside each other, each of them first in turn, so
//! that a disk or a machine that slows down slows down both; what is said is the median of their
//! ratios, and the interval in which it lies 19 times of 20. The best runs twice each time: what it
//! compares to itself is what this machine makes of two things that are the same.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::failure::Outcome;
use crate::hosted::Rio;
use crate::mixes::Mix;
use crate::protocols::{All, NATIVE, PROTOCOLS, Taken, count, one, rounds};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;
use crate::typist::Pace;

/// `auto` is to be within this of the best.
const GOAL: f64 = 1.05;
/// Known well enough, for a median of ratios: the interval reaches no farther to either side.
const KNOWN: f64 = 0.02;
const AT_MOST: Duration = Duration::from_secs(120);

pub fn table() -> Table {
    Table::new(
        "auto against the best fixed protocol",
        &[
            "program",
            "rio",
            "best by count",
            "counted, ms",
            "auto, ms",
            "times",
            "by count",
            "95 %",
            "measured",
            "95 %",
            "best against itself",
            "95 %",
            "worst",
            "worst against auto",
            "auto ended as",
            "moves",
        ],
    )
}

/// Runs of both, side by side, and what they compare to.
#[derive(Default)]
struct Played {
    best: Taken,
    best_again: Taken,
    auto: Taken,
    native_ms: f64,
}

impl Played {
    fn by_count(&self) -> Sample {
        let auto = added_ms(&self.auto, &self.auto).into_iter();
        let ratios = auto
            .zip(added_ms(&self.best, &self.auto))
            .map(|(auto, best)| (self.native_ms + auto) / (self.native_ms + best));
        Sample::new(ratios.collect())
    }

    fn measured(&self) -> Sample {
        rounds(&self.auto, &self.best)
    }

    fn against_itself(&self) -> Sample {
        rounds(&self.best_again, &self.best)
    }

    fn is_known(&self) -> bool {
        [self.by_count(), self.measured()].iter().all(|sample| {
            let (low, high) = sample.median_within();
            high - low <= 2.0 * KNOWN
        })
    }
}

/// What a protocol has added to each run, ms: in commits and syncs as counted, and in records at the
/// price that `auto` has measured here.
fn added_ms(taken: &Taken, auto: &Taken) -> Vec<f64> {
    // What `auto` thinks of them until it has seen some.
    const RECORD_US: f64 = 0.15;
    let record_us = auto.stats["cost_record_us"].as_f64().unwrap_or(RECORD_US);
    let records = count(taken, "logged_events") as f64 * record_us / 1000.0;
    taken.counted_ms.iter().map(|ms| ms + records).collect()
}

pub fn play(
    bench: &Bench,
    mix: &Mix,
    rio: Rio,
    all: &All,
    report: &mut Report,
    table: &mut Table,
) -> Outcome<()> {
    let of = |name| all.get(&(Some(name), Some(rio)));
    let (Some(auto), Some(native)) = (of("auto"), all.get(&NATIVE)) else {
        return Ok(());
    };
    let fixed = PROTOCOLS.into_iter().filter(|&name| name != "auto");
    let mut fixed: Vec<(&str, &Taken)> = fixed.filter_map(|name| Some((name, of(name)?))).collect();
    let added = |taken: &Taken| Sample::new(added_ms(taken, auto)).median();
    fixed.sort_by(|a, b| added(a.1).total_cmp(&added(b.1)));
    let (Some(&(best, _)), Some(&(worst, slowest))) = (fixed.first(), fixed.last()) else {
        return Ok(());
    };
    let played = side_by_side(bench, mix, rio, best, native)?;
    let within = |sample: &Sample| {
        let (low, high) = sample.median_within();
        Cell::text(format!("{low:.3}-{high:.3}"))
    };
    let itself = played.against_itself();
    let (by_count, measured) = (played.by_count(), played.measured());
    table.row([
        Cell::text(mix.name),
        Cell::text(rio.name()),
        Cell::text(best),
        Cell::Figure(added(&played.best), 2),
        Cell::Figure(added(&played.auto), 2),
        Cell::whole(measured.len() as u64),
        Cell::Figure(by_count.median(), 3),
        within(&by_count),
        Cell::Figure(measured.median(), 3),
        within(&measured),
        Cell::Figure(itself.median(), 3),
        within(&itself),
        Cell::text(worst),
        Cell::Figure(rounds(slowest, auto).median(), 2),
        Cell::text(played.auto.stats["protocol_now"].as_str().unwrap_or("-")),
        Cell::whole(count(&played.auto, "protocol_moves")),
    ]);
    for (how, sample) in [("by count", by_count), ("measured", measured)] {
        let what = "auto against the best fixed protocol";
        report.goal(
            format!("{}, {}: {what}, {how}", mix.name, rio.name()),
            GOAL,
            "x",
            sample.median(),
        );
    }
    Ok(())
}

fn side_by_side(
    bench: &Bench,
    mix: &Mix,
    rio: Rio,
    best: &'static str,
    native: &Taken,
) -> Outcome<Played> {
    bench.say(&format!(
        "protocols: {}, {}: auto against {best}",
        mix.name,
        rio.name()
    ));
    let mut played = Played {
        native_ms: Sample::new(native.seconds.clone()).median() * 1000.0,
        ..Played::default()
    };
    let begin = Instant::now();
    for nth in 0.. {
        let enough = match bench.quick {
            true => nth >= 3,
            false => begin.elapsed() > AT_MOST || nth >= 16 && played.is_known(),
        };
        if enough {
            break;
        }
        let mut all = [
            ("auto", &mut played.auto),
            (best, &mut played.best),
            (best, &mut played.best_again),
        ];
        all.rotate_left(nth % 3);
        for (name, taken) in all {
            one(bench, mix, Pace::AsTaken, (Some(name), Some(rio)), taken)?;
        }
    }
    Ok(played)
}
