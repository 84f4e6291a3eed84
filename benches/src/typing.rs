//! A person types, a key every 100 ms: what the protocols cost where the thesis
//! measured them (chapter 6), with commits to memory and to a disk.
//!
//! Programs that wait for a person leave the machine idle, so several are typed
//! at beside each other, their keys shifted against one another.

use std::time::Duration;

use crate::bench::Bench;
use crate::failure::{Failure, Outcome};
use crate::hosted::Rio;
use crate::mixes::{self, Mix};
use crate::protocols::{All, Key, NATIVE, PROTOCOLS, Taken, count, keys, one};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;
use crate::typist::Pace;

const PACE: Duration = Duration::from_millis(100);
/// Persons that type at the same time.
const BESIDE: usize = 3;

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("typing", "The protocols, a key every 100 ms");
    for mix in mixes::typed(bench.either(60, 140))? {
        let mut all = All::new();
        for some in keys().chunks(BESIDE) {
            let names: Vec<&str> = some.iter().map(|key| key.0.unwrap_or("native")).collect();
            bench.say(&format!("typing: {}, {}", mix.name, names.join(" ")));
            all.extend(beside(bench, &mix, some)?);
        }
        report.tables.push(table(&mix, &all));
        goals(&mix, &all, &mut report);
    }
    report.note(
        "Run time is from the start of the command to its end, that of dcrun included. An answer \
         is the time from a key to the first byte shown.",
    );
    Ok(report)
}

/// Types at one program for each key at the same time.
fn beside(bench: &Bench, mix: &Mix, some: &[Key]) -> Outcome<Vec<(Key, Taken)>> {
    std::thread::scope(|scope| {
        let typists: Vec<_> = some
            .iter()
            .zip(0..)
            .map(|(&key, nth)| {
                scope.spawn(move || {
                    std::thread::sleep(PACE / BESIDE as u32 * nth);
                    let mut taken = Taken::default();
                    one(bench, mix, Pace::Every(PACE), key, &mut taken)?;
                    Ok((key, taken))
                })
            })
            .collect();
        let ended = typists.into_iter().map(|typist| {
            let ended = typist.join();
            ended.unwrap_or_else(|_| Err(Failure::new("a typist gave up")))
        });
        ended.collect()
    })
}

fn over_native(all: &All, key: Key) -> f64 {
    let wall = |key: &Key| all.get(key).and_then(|it| it.wall_s.first()).copied();
    match (wall(&key), wall(&NATIVE)) {
        (Some(hosted), Some(native)) => (hosted / native - 1.0) * 100.0,
        _ => f64::NAN,
    }
}

fn table(mix: &Mix, all: &All) -> Table {
    let mut table = Table::new(
        mix.name,
        &[
            "protocol",
            "rio",
            "nd events",
            "logged",
            "visible",
            "commits",
            "bytes logged",
            "pages copied",
            "run time over native, %",
            "answer p50, us",
            "answer p99, us",
        ],
    );
    for (&(protocol, rio), taken) in all {
        let answers = Sample::new(taken.answer_us.clone());
        let whole = |what| match protocol {
            Some(_) => Cell::whole(count(taken, what)),
            None => Cell::text("-"),
        };
        table.row([
            Cell::text(protocol.unwrap_or("native")),
            Cell::text(rio.map_or("-", Rio::name)),
            whole("nd_events"),
            whole("logged_events"),
            whole("visible_events"),
            whole("commits"),
            whole("logged_bytes"),
            whole("pages_copied"),
            Cell::Figure(over_native(all, (protocol, rio)), 2),
            Cell::Figure(answers.median(), 0),
            Cell::Figure(answers.p99(), 0),
        ]);
    }
    table
}

/// Beside targets.md.
fn goals(mix: &Mix, all: &All, report: &mut Report) {
    for (rio, percent) in [(Rio::Tmpfs, 0.5), (Rio::Disk, 5.0)] {
        let best = PROTOCOLS
            .iter()
            .map(|&name| over_native(all, (Some(name), Some(rio))))
            .fold(f64::INFINITY, f64::min);
        report.goal(
            format!("{}, {}, best protocol: over native", mix.name, rio.name()),
            percent,
            "%",
            best,
        );
    }
}
