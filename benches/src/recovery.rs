//! Time from kill -9 until the program goes on.
//!
//! The guest waits for a byte and answers with the time at which it saw it: the
//! first instructions of the program after the kill. The byte is sent right
//! after the kill, so it waits for the program, never the program for it. All
//! clocks are CLOCK_MONOTONIC of one machine. What a lazy recovery owes is
//! measured too: reading all memory once.

use crate::bench::Bench;
use crate::chart::{Axis, Chart};
use crate::failure::{Doing, Outcome};
use crate::guest;
use crate::hosted::{Conversation, Run, Under, kill_now, monotonic_ns};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;
use crate::scale::Kind;
use crate::surroundings;

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("recovery", "Recovery");
    let mut table = Table::new(
        "ms after kill -9 (warm: of the worker; cold: of worker and keeper, then the same command \
         again, from its start)",
        &[
            "how",
            "MB",
            "kills",
            "first instruction min",
            "p50",
            "p99",
            "by the keeper's count p50",
            "first output p50",
            "all memory read p50",
            "target",
        ],
    );
    let mut chart = Chart::new(
        "recovery",
        "From kill -9 to the program's first instruction",
        Axis::new("MB resident", Kind::Log),
        Axis::new("ms, median", Kind::Log),
    );
    let sizes: &[usize] = match surroundings::available_mb() {
        6000.. => bench.either(&[10, 100], &[10, 100, 1024]),
        _ => &[10, 100],
    };
    for how in [How::Warm, How::Cold] {
        let mut line = Vec::new();
        for &mb in sizes {
            bench.say(&format!("recovery: {}, {mb} MB", how.name()));
            let kills = bench.either(3, if mb < 1000 { 25 } else { 12 });
            let taken = match how {
                How::Warm => warm(bench, mb, kills)?,
                How::Cold => cold(bench, mb, kills.min(10))?,
            };
            let target_ms = how.target_ms(mb);
            let first = taken.first.median();
            line.push((mb as f64, first));
            table.row([
                Cell::text(how.name()),
                Cell::whole(mb),
                Cell::whole(taken.kills),
                Cell::Figure(taken.first.min(), 2),
                Cell::Figure(first, 2),
                Cell::Figure(taken.first.p99(), 2),
                Cell::Figure(taken.counted.median(), 2),
                Cell::Figure(taken.output.median(), 2),
                Cell::Figure(taken.walked.median(), 2),
                Cell::text(target_ms.map_or("-".into(), |most| format!("<= {most}"))),
            ]);
            if let Some(at_most) = target_ms {
                report.goal(
                    format!("warm, {mb} MB, first instruction, p50"),
                    at_most,
                    "ms",
                    first,
                );
            }
        }
        chart.line(how.name(), line);
    }
    report.tables.push(table);
    report.charts.push(chart);
    report.note(
        "`all memory read` is from the kill until the program has read one word of every page: \
         what a recovery that brings pages when they are needed still owes. The keeper's count \
         begins when it has seen the death.",
    );
    Ok(report)
}

#[derive(Clone, Copy)]
enum How {
    Warm,
    Cold,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Warm => "warm",
            How::Cold => "cold",
        }
    }

    fn target_ms(self, mb: usize) -> Option<f64> {
        match (self, mb) {
            (How::Warm, 10) => Some(5.0),
            (How::Warm, 1024) => Some(20.0),
            _ => None,
        }
    }
}

/// ms since the kill (warm) or since the new start (cold).
struct Taken {
    kills: usize,
    first: Sample,
    counted: Sample,
    output: Sample,
    walked: Sample,
}

#[derive(Default)]
struct Times {
    first: Vec<f64>,
    output: Vec<f64>,
    walked: Vec<f64>,
}

impl Times {
    /// Speaks to a program that was killed at `since`, or started again then.
    fn take(&mut self, guest: &mut Conversation, since_ns: u64) -> Outcome<()> {
        let ms = |at_ns: u64| (at_ns - since_ns) as f64 / 1e6;
        guest.say(".")?;
        let mut seen_ns = 0;
        // Cold, the last answer before the kill may come once more.
        while seen_ns < since_ns {
            seen_ns = heard(guest)?;
        }
        self.output.push(ms(monotonic_ns()));
        self.first.push(ms(seen_ns));
        self.walked.push(ms(answer(guest, "w")?));
        Ok(())
    }

    fn taken(self, counted: Vec<f64>) -> Taken {
        Taken {
            kills: self.first.len(),
            first: Sample::new(self.first),
            counted: Sample::new(counted),
            output: Sample::new(self.output),
            walked: Sample::new(self.walked),
        }
    }
}

fn warm(bench: &Bench, mb: usize, kills: usize) -> Outcome<Taken> {
    let program = guest::compile(bench, &guest::RESIDENT)?;
    let run = Run::new(bench, Under::Dcrun);
    let mut guest = run.start(&program, &[&mb.to_string()])?;
    let mut times = Times::default();
    settle(&mut guest)?;
    for _ in 0..kills {
        let killed_ns = kill_now(run.worker()?)?;
        times.take(&mut guest, killed_ns)?;
        settle(&mut guest)?;
    }
    let stats = run.stats()?;
    guest.finish()?;
    Ok(times.taken(counted_ms(&stats)))
}

fn cold(bench: &Bench, mb: usize, kills: usize) -> Outcome<Taken> {
    let program = guest::compile(bench, &guest::RESIDENT)?;
    let run = Run::new(bench, Under::Dcrun);
    let mut guest = run.start(&program, &[&mb.to_string()])?;
    let mut times = Times::default();
    for _ in 0..kills {
        settle(&mut guest)?;
        let (worker, keeper) = (run.worker()?, guest.pid());
        kill_now(keeper)?;
        // It goes with its keeper; this is for the case that it is already gone.
        let _ = kill_now(worker);
        guest.reap();
        let started_ns = monotonic_ns();
        guest = run.start(&program, &[&mb.to_string()])?;
        times.take(&mut guest, started_ns)?;
    }
    let stats = run.stats()?;
    guest.finish()?;
    Ok(times.taken(counted_ms(&stats)))
}

/// A few small intervals, so that the kill finds a program at work, not one
/// that has just come back.
fn settle(guest: &mut Conversation) -> Outcome<()> {
    for _ in 0..5 {
        answer(guest, "0")?;
    }
    Ok(())
}

/// The time in the answer to a command.
pub fn answer(guest: &mut Conversation, command: &str) -> Outcome<u64> {
    guest.say(command)?;
    heard(guest)
}

/// The time in the next line.
fn heard(guest: &mut Conversation) -> Outcome<u64> {
    let line = guest.hear()?;
    let time = line.split(' ').next().and_then(|word| word.parse().ok());
    time.doing(|| format!("time in the answer {line:?}"))
}

fn counted_ms(stats: &serde_json::Value) -> Vec<f64> {
    let ring = stats["recovery_us"].as_array();
    ring.into_iter()
        .flatten()
        .filter_map(|us| Some(us.as_f64()? / 1000.0))
        .collect()
}
