//! Overhead and log size against the commit interval: figures 5.3 and 5.4.
//!
//! Real programs with a real working set: a video encoder, with one thread and
//! with its own, and an interpreter with a large heap. In each round the program
//! runs natively, hosted without a clock, and with each interval, so that all
//! see the same machine. Overhead is that of the minima over the rounds, by wall
//! time and by processor time; what the runtime itself counted inside commits
//! stands beside them, because it knows nothing of other programs' noise.

use std::time::Duration;

use crate::bench::Bench;
use crate::chart::{Axis, Chart};
use crate::failure::Outcome;
use crate::hosted::{Run, Under, spent};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;
use crate::scale::Kind;
use crate::watcher::Watcher;
use crate::workload::{Workload, workloads};

const KB: f64 = 1024.0;
/// A run shall have room for so many intervals.
const INTERVALS_LEAST: f64 = 3.0;
/// On a log scale; below it a difference of wall times means nothing.
const LEAST_SHOWN: f64 = 0.1;
const TARGETS: [(u64, f64); 2] = [(1000, 1.0), (10, 5.0)];

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("interval", "Committing by the clock");
    let intervals_ms: &[u64] = bench.either(
        &[1, 10, 100, 1000],
        &[1, 3, 10, 30, 100, 300, 1000, 3000, 10000],
    );
    let mut overheads = Chart::new(
        "interval-overhead",
        "Overhead against the interval, as counted inside commits",
        Axis::new("interval, ms", Kind::Log),
        Axis::new("% of the run", Kind::Log),
    );
    let mut walls = Chart::new(
        "interval-wall",
        "Overhead against the interval, by wall time over native",
        Axis::new("interval, ms", Kind::Log),
        Axis::new("% (0.1: none seen)", Kind::Log),
    );
    let mut logs = Chart::new(
        "interval-log",
        "Log of a commit against the interval",
        Axis::new("interval, ms", Kind::Log),
        Axis::new("KB copied to Rio a commit", Kind::Log),
    );
    for workload in workloads(bench)? {
        let sweep = Sweep::take(bench, &workload, intervals_ms)?;
        sweep.rows(&workload, &mut report);
        let line = |of: fn(&Point, &Sweep) -> f64| -> Vec<(f64, f64)> {
            let points = sweep.points.iter();
            points
                .filter_map(|point| Some((point.interval_ms? as f64, of(point, &sweep))))
                .collect()
        };
        overheads.line(workload.name, line(|point, _| point.in_commits));
        walls.line(
            workload.name,
            line(|point, sweep| point.wall_over(sweep).max(LEAST_SHOWN)),
        );
        logs.line(workload.name, line(|point, _| point.kb_each.mean()));
        let most = format!("{}, largest", workload.name);
        logs.line_beside(most, line(|point, _| point.kb_each.max()));
        for (ms, percent) in TARGETS {
            let point = sweep.points.iter().find(|p| p.interval_ms == Some(ms));
            for clock in [Clock::Wall, Clock::Processor] {
                let measured = point.map_or(f64::NAN, |point| point.over_hosted(&sweep, clock));
                report.goal(
                    format!("{}, every {ms} ms, {}", workload.name, clock.name()),
                    percent,
                    "%",
                    measured,
                );
            }
        }
    }
    report.charts.extend([overheads, walls, logs]);
    report.note(
        "The goals compare with a hosted run without a clock, which has the same start and the \
         same system calls; `over native` has those too. Where hosted without a clock and native \
         differ by several %, the machine was too busy for wall times, and processor time tells \
         more. Runs are as long as three intervals at least.",
    );
    report.note(
        "The log of a commit is the pages it copied and its share of the journal; the first \
         commit, which has the whole program, is left out. Commits closer than 1 ms are seen as \
         several of one size, so their largest is a lower bound.",
    );
    Ok(report)
}

/// One interval, over all rounds; none is hosted without a clock.
struct Point {
    interval_ms: Option<u64>,
    units: u32,
    wall_s: Sample,
    processor_s: Sample,
    /// % of the wall time.
    in_commits: f64,
    commits: f64,
    /// What a commit wrote to Rio, without the first.
    kb_each: Sample,
    rio_mb: f64,
}

impl Point {
    fn wall_over(&self, sweep: &Sweep) -> f64 {
        over(&self.wall_s, sweep.native(self.units).map(|n| &n.wall_s))
    }

    fn processor_over(&self, sweep: &Sweep) -> f64 {
        over(
            &self.processor_s,
            sweep.native(self.units).map(|n| &n.processor_s),
        )
    }

    fn over_hosted(&self, sweep: &Sweep, clock: Clock) -> f64 {
        let hosted = sweep
            .points
            .iter()
            .find(|p| p.interval_ms.is_none() && p.units == self.units);
        over(clock.of(self), hosted.map(|point| clock.of(point)))
    }
}

/// By which of its times a run is judged.
#[derive(Clone, Copy)]
enum Clock {
    Wall,
    Processor,
}

impl Clock {
    fn of(self, point: &Point) -> &Sample {
        match self {
            Clock::Wall => &point.wall_s,
            Clock::Processor => &point.processor_s,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Clock::Wall => "wall time",
            Clock::Processor => "processor time",
        }
    }
}

fn over(ours: &Sample, theirs: Option<&Sample>) -> f64 {
    theirs.map_or(f64::NAN, |theirs| (ours.min() / theirs.min() - 1.0) * 100.0)
}

struct Native {
    units: u32,
    wall_s: Sample,
    processor_s: Sample,
}

struct Sweep {
    natives: Vec<Native>,
    points: Vec<Point>,
}

impl Sweep {
    /// Runs long enough for its interval; intervals that want the same length
    /// share their rounds, and so their native runs.
    fn take(bench: &Bench, workload: &Workload, intervals_ms: &[u64]) -> Outcome<Sweep> {
        let length_s = bench.either(1.0, 3.0);
        let length = Length::of(bench, workload)?;
        let units = |ms: u64| {
            let wanted_s = (ms as f64 / 1000.0 * INTERVALS_LEAST).max(length_s);
            length.units(wanted_s)
        };
        let mut groups: Vec<(u32, Vec<u64>)> = Vec::new();
        for &ms in intervals_ms {
            match groups.iter_mut().find(|group| group.0 == units(ms)) {
                Some(group) => group.1.push(ms),
                None => groups.push((units(ms), vec![ms])),
            }
        }
        let mut sweep = Sweep {
            natives: Vec::new(),
            points: Vec::new(),
        };
        for (units, intervals_ms) in groups {
            let rounds = match length.seconds(units) {
                ..6.0 => bench.either(1, 3),
                _ => 1,
            };
            sweep.group(bench, workload, units, &intervals_ms, rounds)?;
        }
        Ok(sweep)
    }

    fn group(
        &mut self,
        bench: &Bench,
        workload: &Workload,
        units: u32,
        intervals_ms: &[u64],
        rounds: usize,
    ) -> Outcome<()> {
        let mut native = Taken::default();
        let clocks = || std::iter::once(None).chain(intervals_ms.iter().copied().map(Some));
        let mut hosted: Vec<Taken> = clocks().map(|_| Taken::default()).collect();
        for round in 1..=rounds {
            bench.say(&format!(
                "interval: {}, {units} units, round {round} of {rounds}",
                workload.name
            ));
            native.add(bench, workload, Under::Nothing, units)?;
            for (taken, clock) in hosted.iter_mut().zip(clocks()) {
                let under = clock.map_or(Under::Dcrun, Under::Interval);
                taken.add(bench, workload, under, units)?;
            }
        }
        self.natives.push(Native {
            units,
            wall_s: Sample::new(native.wall_s),
            processor_s: Sample::new(native.processor_s),
        });
        let points = hosted.into_iter().zip(clocks());
        self.points
            .extend(points.map(|(taken, clock)| taken.point(clock, units)));
        Ok(())
    }

    fn native(&self, units: u32) -> Option<&Native> {
        self.natives.iter().find(|native| native.units == units)
    }

    fn rows(&self, workload: &Workload, report: &mut Report) {
        let mut table = Table::new(
            workload.says,
            &[
                "interval ms",
                "native s",
                "hosted s",
                "wall over native %",
                "processor over native %",
                "wall over hosted without clock %",
                "inside commits %",
                "commits",
                "KB a commit",
                "largest KB",
                "Rio MB",
            ],
        );
        for point in &self.points {
            let native = self.native(point.units);
            let interval = point.interval_ms.map_or("none".into(), |ms| ms.to_string());
            table.row([
                Cell::text(interval),
                Cell::Figure(native.map_or(f64::NAN, |native| native.wall_s.min()), 2),
                Cell::Figure(point.wall_s.min(), 2),
                Cell::Figure(point.wall_over(self), 1),
                Cell::Figure(point.processor_over(self), 1),
                Cell::Figure(point.over_hosted(self, Clock::Wall), 1),
                Cell::Figure(point.in_commits, 2),
                Cell::Figure(point.commits, 0),
                Cell::Figure(point.kb_each.mean(), 1),
                Cell::Figure(point.kb_each.max(), 1),
                Cell::Figure(point.rio_mb, 1),
            ]);
        }
        report.tables.push(table);
    }
}

/// How long a native run takes: some units, and what it does before the first.
struct Length {
    start_s: f64,
    unit_s: f64,
}

impl Length {
    fn of(bench: &Bench, workload: &Workload) -> Outcome<Length> {
        const MANY: u32 = 5;
        let timed = |units| -> Outcome<f64> {
            let (_, spent) = spent(|| workload.run(&Run::new(bench, Under::Nothing), units))?;
            Ok(spent.wall.as_secs_f64())
        };
        let (one_s, many_s) = (timed(1)?, timed(MANY)?);
        let unit_s = ((many_s - one_s) / f64::from(MANY - 1)).max(0.01);
        Ok(Length {
            start_s: (one_s - unit_s).max(0.0),
            unit_s,
        })
    }

    fn units(&self, wanted_s: f64) -> u32 {
        ((wanted_s - self.start_s) / self.unit_s).ceil().max(1.0) as u32
    }

    fn seconds(&self, units: u32) -> f64 {
        self.start_s + self.unit_s * f64::from(units)
    }
}

#[derive(Default)]
struct Taken {
    wall_s: Vec<f64>,
    processor_s: Vec<f64>,
    stats: Vec<serde_json::Value>,
    kb_each: Vec<f64>,
}

impl Taken {
    fn add(&mut self, bench: &Bench, workload: &Workload, under: Under, units: u32) -> Outcome<()> {
        let run = Run::new(bench, under);
        let watcher = match under {
            Under::Interval(ms) => Some(Watcher::start(run.record(), Duration::from_millis(ms))),
            _ => None,
        };
        let (_, spent) = spent(|| workload.run(&run, units))?;
        if let Some(watcher) = watcher {
            self.kb_each.extend(watcher.finish().values());
        }
        self.wall_s.push(spent.wall.as_secs_f64());
        self.processor_s.push(spent.processor.as_secs_f64());
        if under != Under::Nothing {
            self.stats.push(run.stats()?);
        }
        Ok(())
    }

    fn point(self, interval_ms: Option<u64>, units: u32) -> Point {
        let median = |of: &dyn Fn(&serde_json::Value) -> f64| {
            Sample::new(self.stats.iter().map(of).collect()).median()
        };
        let count = |stats: &serde_json::Value, key: &str| stats[key].as_f64().unwrap_or(f64::NAN);
        let shares = self.stats.iter().zip(&self.wall_s);
        let shares = shares.map(|(stats, wall_s)| count(stats, "commit_total_us") / wall_s / 1e4);
        Point {
            interval_ms,
            units,
            in_commits: Sample::new(shares.collect()).median(),
            commits: median(&|s| count(s, "commits")),
            kb_each: Sample::new(self.kb_each),
            rio_mb: median(&|s| count(s, "image_bytes") / KB / KB),
            wall_s: Sample::new(self.wall_s),
            processor_s: Sample::new(self.processor_s),
        }
    }
}
