//! Trees of processes: births beside native ones, and commits of many processes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::bench::Bench;
use crate::failure::Outcome;
use crate::guest;
use crate::hosted::{Run, Under, spent};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;

/// What `births` is asked for, and the most against native (targets.md); of commits in us.
struct Kind {
    says: &'static str,
    arguments: [&'static str; 2],
    repeats: u32,
    at_most: Option<f64>,
}

const fn kind(
    says: &'static str,
    arguments: [&'static str; 2],
    repeats: u32,
    at_most: Option<f64>,
) -> Kind {
    Kind {
        says,
        arguments,
        repeats,
        at_most,
    }
}

const BIRTHS: [Kind; 6] = [
    kind("fork, exec of true, wait", ["exec", "1"], 200, Some(2.0)),
    kind(
        "fork and exit, 10 MB resident",
        ["fork", "10"],
        100,
        Some(2.0),
    ),
    kind("fork and exit, 100 MB", ["fork", "100"], 30, Some(2.0)),
    kind("fork and exit, 1 GB", ["fork", "1024"], 8, Some(2.0)),
    kind(
        "posix_spawn of true, from 10 MB",
        ["spawn", "10"],
        100,
        None,
    ),
    kind("posix_spawn of true, from 1 GB", ["spawn", "1024"], 8, None),
];

/// 10 us and 20 for each process that runs.
const COMMITS: [Kind; 5] = [
    kind("none", ["commit", "0"], 400, Some(10.0)),
    kind("1 that runs", ["commit", "1"], 400, Some(30.0)),
    kind("2 that run", ["commit", "2"], 400, Some(50.0)),
    kind("4 that run", ["commit", "4"], 400, Some(90.0)),
    kind("8 that run", ["commit", "8"], 400, Some(170.0)),
];

const ASLEEP: Kind = kind("100 that sleep", ["sleepers", "100"], 400, None);

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("tree", "Trees of processes");
    let program = guest::compile(bench, &guest::BIRTHS)?;
    births(bench, &program, &mut report)?;
    commits(bench, &program, &mut report)?;
    scripts(bench, &mut report)?;
    report.note(
        "Between two commits the program sleeps for 2 ms, so that the others run. What a fork of \
         much memory costs under dcrun is the copy at the child's first commit, if it has one.",
    );
    Ok(report)
}

fn births(bench: &Bench, program: &Path, report: &mut Report) -> Outcome<()> {
    let mut table = Table::new(
        "us from the call until the parent has waited for the child",
        &[
            "birth",
            "native min",
            "native p50",
            "hosted min",
            "hosted p50",
            "ratio of p50",
        ],
    );
    let mut spawns = Vec::new();
    for kind in &BIRTHS {
        let (native, hosted) = both(bench, program, kind)?;
        let ratio = hosted.median() / native.median();
        table.row([
            Cell::text(kind.says),
            Cell::Figure(native.min(), 1),
            Cell::Figure(native.median(), 1),
            Cell::Figure(hosted.min(), 1),
            Cell::Figure(hosted.median(), 1),
            Cell::Figure(ratio, 2),
        ]);
        match kind.at_most {
            Some(at_most) => report.goal(kind.says, at_most, "x native", ratio),
            None => spawns.push(hosted.median()),
        }
    }
    report.tables.push(table);
    report.goal(
        "posix_spawn, hosted, from 1 GB over from 10 MB",
        1.5,
        "x",
        spawns[1] / spawns[0],
    );
    Ok(())
}

fn commits(bench: &Bench, program: &Path, report: &mut Report) -> Outcome<()> {
    let mut table = Table::new(
        "us that a visible event takes, 3 pages written before it",
        &[
            "other processes",
            "native p50",
            "hosted min",
            "hosted p50",
            "goal",
        ],
    );
    let mut alone = f64::NAN;
    for kind in COMMITS.iter().chain([&ASLEEP]) {
        let (native, hosted) = both(bench, program, kind)?;
        match kind.at_most {
            Some(at_most) => {
                let what = format!("commit, other processes: {}, p50", kind.says);
                report.goal(what, at_most, "us", hosted.median());
            }
            None => {
                let ratio = hosted.median() / alone;
                report.goal("commit beside 100 that sleep, over alone", 1.05, "x", ratio);
            }
        }
        if alone.is_nan() {
            alone = hosted.median();
        }
        table.row([
            Cell::text(kind.says),
            Cell::Figure(native.median(), 2),
            Cell::Figure(hosted.min(), 2),
            Cell::Figure(hosted.median(), 2),
            Cell::text(
                kind.at_most
                    .map_or("5 % more than none".into(), |us| format!("{us} us")),
            ),
        ]);
    }
    report.tables.push(table);
    Ok(())
}

/// us of each round, native and hosted, in turns.
fn both(bench: &Bench, program: &Path, kind: &Kind) -> Outcome<(Sample, Sample)> {
    bench.say(&format!("tree: {}", kind.says));
    let repeats = bench.either(kind.repeats / 8 + 1, kind.repeats).to_string();
    let (mut native, mut hosted) = (Vec::new(), Vec::new());
    for _ in 0..bench.either(1, 5) {
        for (under, taken) in [(Under::Nothing, &mut native), (Under::Dcrun, &mut hosted)] {
            let [what, size] = kind.arguments;
            let run = Run::new(bench, under);
            let output = run.output(program, &[what, &repeats, size])?;
            let ns = output.lines().filter_map(|line| line.parse::<f64>().ok());
            taken.extend(ns.map(|ns| ns / 1000.0));
        }
    }
    Ok((Sample::new(native), Sample::new(hosted)))
}

fn scripts(bench: &Bench, report: &mut Report) -> Outcome<()> {
    let commands = bench.either(100, 1000);
    let megabytes = bench.either(64, 1024);
    let script = format!("i=0; while [ $i -lt {commands} ]; do /bin/true; i=$((i+1)); done");
    let pipeline = format!("head -c {megabytes}M /dev/zero | cat | cat | wc -c");
    let wholes = [
        ("a script of 1000 external commands", script, 2.0),
        ("1 GB through cat | cat | wc -c", pipeline, 1.25),
    ];
    let bash: PathBuf = guest::packaged("bash")?;
    let mut table = Table::new(
        "s of a whole script",
        &[
            "script",
            "native min",
            "native p50",
            "hosted min",
            "hosted p50",
            "ratio of p50",
        ],
    );
    for (says, text, at_most) in wholes {
        bench.say(&format!("tree: {says}"));
        let (mut native, mut hosted) = (Vec::new(), Vec::new());
        for _ in 0..bench.either(1, 5) {
            for (under, taken) in [(Under::Nothing, &mut native), (Under::Dcrun, &mut hosted)] {
                let run = Run::new(bench, under);
                let begun = Instant::now();
                spent(|| run.output(&bash, &["-c", &text]))?;
                taken.push(begun.elapsed().as_secs_f64());
            }
        }
        let (native, hosted) = (Sample::new(native), Sample::new(hosted));
        let ratio = hosted.median() / native.median();
        table.row([
            Cell::text(says),
            Cell::Figure(native.min(), 3),
            Cell::Figure(native.median(), 3),
            Cell::Figure(hosted.min(), 3),
            Cell::Figure(hosted.median(), 3),
            Cell::Figure(ratio, 2),
        ]);
        report.goal(says, at_most, "x native", ratio);
    }
    report.tables.push(table);
    Ok(())
}
