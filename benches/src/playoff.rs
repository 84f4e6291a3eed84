//! `auto` against the best fixed protocol, until it is known which of them is faster.
//!
//! Of the fixed protocols the best is the one that has added least by count: the time in commits and
//! syncs that the runtime itself has seen, and its records at their price. (The fastest of seven that
//! scatter would be the luckiest one.) Then both run in pairs, each of them first in turn, so that a
//! disk or a machine that slows down slows down both; what is said is the median of the ratios of the
//! pairs, and the interval in which it lies 19 times of 20.

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
const AT_MOST: Duration = Duration::from_secs(90);

pub fn table() -> Table {
    Table::new(
        "auto against the best fixed protocol",
        &[
            "program",
            "rio",
            "best by count",
            "counted, ms",
            "auto, ms",
            "pairs",
            "by count",
            "95 %",
            "measured",
            "95 %",
            "worst",
            "worst against auto",
            "auto ended as",
            "moves",
        ],
    )
}

/// Runs of both, a pair after the other, and what they compare to.
struct Pairs {
    best: Taken,
    auto: Taken,
    native_ms: f64,
}

impl Pairs {
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
    let pairs = pairs(bench, mix, rio, best, native)?;
    let within = |sample: &Sample| {
        let (low, high) = sample.median_within();
        Cell::text(format!("{low:.3}-{high:.3}"))
    };
    let (by_count, measured) = (pairs.by_count(), pairs.measured());
    table.row([
        Cell::text(mix.name),
        Cell::text(rio.name()),
        Cell::text(best),
        Cell::Figure(added(&pairs.best), 2),
        Cell::Figure(added(&pairs.auto), 2),
        Cell::whole(measured.len() as u64),
        Cell::Figure(by_count.median(), 3),
        within(&by_count),
        Cell::Figure(measured.median(), 3),
        within(&measured),
        Cell::text(worst),
        Cell::Figure(rounds(slowest, auto).median(), 2),
        Cell::text(pairs.auto.stats["protocol_now"].as_str().unwrap_or("-")),
        Cell::whole(count(&pairs.auto, "protocol_moves")),
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

fn pairs(bench: &Bench, mix: &Mix, rio: Rio, best: &'static str, native: &Taken) -> Outcome<Pairs> {
    bench.say(&format!(
        "protocols: {}, {}: auto against {best}",
        mix.name,
        rio.name()
    ));
    let mut pairs = Pairs {
        best: Taken::default(),
        auto: Taken::default(),
        native_ms: Sample::new(native.seconds.clone()).median() * 1000.0,
    };
    let begin = Instant::now();
    for nth in 0.. {
        let enough = match bench.quick {
            true => nth >= 3,
            false => begin.elapsed() > AT_MOST || nth >= 16 && pairs.is_known(),
        };
        if enough {
            break;
        }
        let mut both = [("auto", &mut pairs.auto), (best, &mut pairs.best)];
        if nth % 2 == 1 {
            both.reverse();
        }
        for (name, taken) in both {
            one(bench, mix, Pace::AsTaken, (Some(name), Some(rio)), taken)?;
        }
    }
    Ok(pairs)
}
