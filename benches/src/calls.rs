//! What a system call costs more under dcrun: the interposition line.
//!
//! One guest process a kind and a run; native and hosted runs alternate. The
//! ratio is that of the minima: what descheduling adds is not interposition.

use crate::bench::Bench;
use crate::failure::Outcome;
use crate::guest;
use crate::hosted::{Run, Under};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;

struct Kind {
    name: &'static str,
    says: &'static str,
    repeats: u32,
    /// Against native, from targets.md.
    at_most: Option<f64>,
}

const KINDS: [Kind; 11] = [
    kind("getppid", "getppid", 40_000, Some(1.5)),
    kind(
        "getppid-direct",
        "getppid through syscall(2)",
        40_000,
        Some(1.5),
    ),
    kind(
        "getppid-trap",
        "getppid from a site that is not patched",
        10_000,
        None,
    ),
    kind("read-zero", "read of 1 byte, /dev/zero", 20_000, Some(1.5)),
    kind("read-file", "pread of 1 byte, a file", 20_000, Some(1.5)),
    kind("write-null", "write of 1 byte, /dev/null", 20_000, None),
    kind("open-close", "open and close, /dev/null", 10_000, Some(1.2)),
    kind("clock", "clock_gettime", 40_000, Some(1.5)),
    kind("malloc-free", "malloc and free", 400_000, Some(1.0)),
    kind(
        "ping-pong",
        "1 byte there and back, pipes, 2 threads",
        400,
        None,
    ),
    kind("fork-exec", "fork, exec of true, wait", 20, Some(2.0)),
];

const fn kind(name: &'static str, says: &'static str, repeats: u32, at_most: Option<f64>) -> Kind {
    Kind {
        name,
        says,
        repeats,
        at_most,
    }
}

/// Two runs of the same code differ by so much even when nothing is in between.
const TOLERANCE: f64 = 0.02;

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("calls", "Cost of system calls");
    let mut table = Table::new(
        "ns a call",
        &[
            "call",
            "native min",
            "native p50",
            "hosted min",
            "hosted p50",
            "ratio of minima",
            "target",
        ],
    );
    for kind in &KINDS {
        bench.say(&format!("calls: {}", kind.says));
        let mut native = Vec::new();
        let mut hosted = Vec::new();
        let mut refused = None;
        for _ in 0..bench.either(2, 5) {
            native.extend(rounds(bench, Under::Nothing, kind).unwrap_or_default());
            match rounds(bench, Under::Dcrun, kind) {
                Ok(taken) => hosted.extend(taken),
                Err(why) => refused = Some(why.to_string()),
            }
        }
        let (native, hosted) = (Sample::new(native), Sample::new(hosted));
        let ratio = hosted.min() / native.min();
        table.row([
            Cell::text(kind.says),
            Cell::Figure(native.min(), 1),
            Cell::Figure(native.median(), 1),
            Cell::Figure(hosted.min(), 1),
            Cell::Figure(hosted.median(), 1),
            Cell::Figure(ratio, 2),
            Cell::text(kind.at_most.map_or("-".into(), |most| format!("<= {most}"))),
        ]);
        if let Some(at_most) = kind.at_most {
            let at_most = if at_most == 1.0 {
                1.0 + TOLERANCE
            } else {
                at_most
            };
            report.goal(kind.says, at_most, "x native", ratio);
        }
        if let Some(why) = refused {
            report.note(format!("{}, hosted: {why}", kind.says));
        }
    }
    report.tables.push(table);
    report.note(
        "Hosted, the first clock_gettime of an interval is a call, the others are answered by the \
         kernel's vDSO through ours. The pipes are the program's own, so that nothing is committed: \
         the runtime asks whether they are ready before it takes its lock. The goal for malloc and \
         free is 1.0, here with 2 % for chance.",
    );
    Ok(report)
}

/// ns a call, for each round.
fn rounds(bench: &Bench, under: Under, kind: &Kind) -> Outcome<Vec<f64>> {
    let program = guest::compile(bench, &guest::CALLS)?;
    let repeats = bench
        .either(kind.repeats / 10 + 1, kind.repeats)
        .to_string();
    let run = Run::new(bench, under);
    let output = run.output(&program, &[kind.name, &repeats, "7"])?;
    match output.lines().last() {
        Some("ok") => Ok(output
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()),
        last => Err(crate::failure::Failure::new(format!(
            "{}{}",
            last.unwrap_or("no output"),
            run.complaint()
        ))),
    }
}
