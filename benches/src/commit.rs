//! Cost of a commit against the pages touched: the thesis' figure 5.2.
//!
//! A guest touches pages and asks for a checkpoint through the reserved call,
//! timing both from inside. The overhead of an interval is the checkpoint plus
//! what touching costs more than natively: the first write into a page that is
//! watched is a fault. Natively the same loop runs just before, so that the two
//! see the same machine.

use crate::bench::Bench;
use crate::chart::{Axis, Chart};
use crate::failure::{Doing, Outcome};
use crate::guest;
use crate::hosted::{Run, Under};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;
use crate::scale::Kind;
use crate::sqlite;
use crate::surroundings;

const PAGES_OF_MB: usize = 256;
const COLUMNS: [&str; 9] = [
    "pages touched",
    "pages copied",
    "min us",
    "p50 us",
    "p99 us",
    "touch us",
    "native touch us",
    "overhead p50 us",
    "us each page",
];

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("commit", "Cost of a commit");
    let counts: &[usize] = bench.either(
        &[1, 16, 256, 1024],
        &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
    );
    let mut chart = Chart::new(
        "commit",
        "Overhead of an interval against the pages touched in it",
        Axis::new("4 KB pages touched in the interval", Kind::Log2),
        Axis::new("us", Kind::Log),
    );
    let mut at_256 = [f64::NAN; 2];
    let mut slopes = [f64::NAN; 2];
    for (nth, kind) in [Touch::Hot, Touch::Fresh].into_iter().enumerate() {
        let mut table = Table::new(kind.title(), &COLUMNS);
        let mut overhead = Vec::new();
        let mut commits = Vec::new();
        for &pages in counts {
            bench.say(&format!("commit: {pages} pages, {}", kind.name()));
            let taken = take(bench, kind, 64, pages)?;
            commits.push((pages as f64, taken.commit.median()));
            overhead.push((pages as f64, taken.overhead()));
            table.rows.push(taken.row(pages, overhead.first().copied()));
            if pages == PAGES_OF_MB {
                at_256[nth] = taken.overhead();
            }
        }
        slopes[nth] = slope(&overhead);
        chart.line(format!("{}, with its faults", kind.name()), overhead);
        chart.line_beside(format!("{}, the checkpoint alone", kind.name()), commits);
        report.tables.push(table);
    }
    report.charts.push(chart);

    let smallest = take(bench, Touch::Hot, 16, 1)?;
    resident(bench, &mut report)?;
    let sqlite_us = sqlite::measure(bench, &mut report)?;

    report.goal(
        format!(
            "smallest checkpoint, p50 ({:.1} pages copied each)",
            smallest.copied
        ),
        5.0,
        "us",
        smallest.commit.median(),
    );
    report.goal(
        "sqlite3, commit at each output write",
        10.0,
        "us",
        sqlite_us,
    );
    report.goal("each further page, same pages", 0.2, "us", slopes[0]);
    report.goal("each further page, other pages", 1.0, "us", slopes[1]);
    report.goal("1 MB touched, same pages", 250.0, "us", at_256[0]);
    report.goal("1 MB touched, other pages", 250.0, "us", at_256[1]);
    report.note(
        "`pages copied` counts the guest's stack and samples too. `us each page` and the goals \
         of `each further page` are slopes of the overhead, from the smallest interval to 256 \
         pages for the goals. Faults are included in every overhead.",
    );
    Ok(report)
}

/// The same small commit with little and with much memory behind it.
fn resident(bench: &Bench, report: &mut Report) -> Outcome<()> {
    let available_mb = surroundings::available_mb();
    let large_mb = match (bench.quick, available_mb) {
        (true, _) => 512,
        (_, 14_000..) => 4096,
        _ => 2048,
    };
    let mut table = Table::new(
        "The same small commit (1 page touched, and the guest's stack and sample) with more memory \
         resident",
        &["resident MB", "pages copied", "min us", "p50 us", "p99 us"],
    );
    let mut chart = Chart::new(
        "commit-resident",
        "A small commit against the resident size",
        Axis::new("MB resident", Kind::Log2),
        Axis::new("us", Kind::Linear),
    );
    let mut line = Vec::new();
    let sizes: &[usize] = bench.either(&[16, 512], &[16, 64, 256, 1024, 2048, 4096]);
    for &mb in sizes.iter().filter(|mb| **mb <= large_mb) {
        bench.say(&format!("commit: {mb} MB resident"));
        let taken = take(bench, Touch::Hot, mb, 1)?;
        line.push((mb as f64, taken.commit.median()));
        table.row([
            Cell::whole(mb),
            Cell::Figure(taken.copied, 1),
            Cell::Figure(taken.commit.min(), 2),
            Cell::Figure(taken.commit.median(), 2),
            Cell::Figure(taken.commit.p99(), 2),
        ]);
    }
    let ratio = match (line.first(), line.last()) {
        (Some(small), Some(large)) => large.1 / small.1,
        _ => f64::NAN,
    };
    report.goal(
        format!("the same commit at {large_mb} MB and at 16 MB resident"),
        1.5,
        "x",
        ratio,
    );
    if large_mb < 4096 {
        report.note(format!(
            "Resident size measured up to {large_mb} MB, not 4096: {available_mb} MB were free."
        ));
    }
    chart.line("p50", line);
    report.tables.push(table);
    report.charts.push(chart);
    Ok(())
}

#[derive(Clone, Copy)]
enum Touch {
    Hot,
    Fresh,
}

impl Touch {
    fn name(self) -> &'static str {
        match self {
            Touch::Hot => "same pages",
            Touch::Fresh => "other pages",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Touch::Hot => "The same pages touched in every interval",
            Touch::Fresh => "Other pages touched in every interval",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Touch::Hot => "hot",
            Touch::Fresh => "fresh",
        }
    }
}

/// One point of the figure; all times in us.
struct Taken {
    touch: Sample,
    commit: Sample,
    native_touch: Sample,
    /// Pages copied by a commit, on average.
    copied: f64,
}

impl Taken {
    /// The median interval's overhead.
    fn overhead(&self) -> f64 {
        let faults = (self.touch.median() - self.native_touch.median()).max(0.0);
        self.commit.median() + faults
    }

    fn row(&self, pages: usize, first: Option<(f64, f64)>) -> Vec<Cell> {
        let each = match first {
            Some((least, overhead)) if (pages as f64) > least => {
                (self.overhead() - overhead) / (pages as f64 - least)
            }
            _ => f64::NAN,
        };
        vec![
            Cell::whole(pages),
            Cell::Figure(self.copied, 1),
            Cell::Figure(self.commit.min(), 2),
            Cell::Figure(self.commit.median(), 2),
            Cell::Figure(self.commit.p99(), 2),
            Cell::Figure(self.touch.median(), 2),
            Cell::Figure(self.native_touch.median(), 2),
            Cell::Figure(self.overhead(), 2),
            Cell::Figure(each, 3),
        ]
    }
}

fn take(bench: &Bench, kind: Touch, resident_mb: usize, pages: usize) -> Outcome<Taken> {
    let program = guest::compile(bench, &guest::COMMIT)?;
    let budget: usize = bench.either(20_000, 200_000);
    let intervals = (budget / (pages + 20)).clamp(bench.either(40, 60), 5000);
    let arguments = [
        kind.argument(),
        &resident_mb.to_string(),
        &pages.to_string(),
        &intervals.to_string(),
    ];
    let native = Run::new(bench, Under::Nothing).output(&program, &arguments)?;
    let hosted = Run::new(bench, Under::Dcrun).output(&program, &arguments)?;
    let (native_touch, _) = columns(&native);
    let (touch, commit) = columns(&hosted);
    let counted = hosted
        .lines()
        .find_map(|line| line.strip_prefix("counted "))
        .doing(|| "counters of the commit guest".to_owned())?;
    let counted: Vec<f64> = counted
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(Taken {
        touch,
        commit,
        native_touch,
        copied: counted.get(1).unwrap_or(&f64::NAN) / counted.first().unwrap_or(&f64::NAN),
    })
}

/// us of touching and of the checkpoint.
fn columns(output: &str) -> (Sample, Sample) {
    let pairs: Vec<(f64, f64)> = output
        .lines()
        .filter_map(|line| {
            let (touch, commit) = line.split_once(' ')?;
            let us = |word: &str| Some(word.parse::<f64>().ok()? / 1000.0);
            Some((us(touch)?, us(commit)?))
        })
        .collect();
    (
        Sample::new(pairs.iter().map(|pair| pair.0).collect()),
        Sample::new(pairs.iter().map(|pair| pair.1).collect()),
    )
}

/// Overhead of one page more, from the smallest interval to 256 pages.
fn slope(points: &[(f64, f64)]) -> f64 {
    let last = points.iter().find(|point| point.0 as usize == PAGES_OF_MB);
    match (points.first(), last) {
        (Some(first), Some(last)) => (last.1 - first.1) / (last.0 - first.0),
        _ => f64::NAN,
    }
}
