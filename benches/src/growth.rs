//! How Rio grows: its bytes against the resident size and the dirty set.
//!
//! Two guests of the same program, native and hosted, take the same steps: grow,
//! then write a share of the memory again and again, leave it alone, then give
//! memory back. After each step both are asked what they hold.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::bench::Bench;
use crate::chart::{Axis, Chart};
use crate::failure::{Doing, Outcome};
use crate::guest;
use crate::hosted::{Conversation, Run, Under};
use crate::recovery::answer;
use crate::report::{Cell, Report, Table};
use crate::scale::Kind;

const MB: f64 = 1048576.0;
const PAGE: f64 = 4096.0;
const START_MB: &str = "16";

/// Not a command: [`leave_alone`].
const LEFT_ALONE: &str = "left alone";
/// Not a command either: so long nothing happens, and then one page is written.
const REST: &str = "6 s of rest";
const REST_TIME: Duration = Duration::from_secs(6);

/// A command of the guest, and how often: growing, then dirty sets, then nothing
/// for long, then less.
fn steps(bench: &Bench) -> Vec<(&'static str, usize)> {
    vec![
        ("+", bench.either(3, 15)),
        ("0", 6),
        ("1", 6),
        ("5", 6),
        ("9", 6),
        (LEFT_ALONE, 1),
        ("9", 2),
        ("-", bench.either(3, 12)),
        (REST, 1),
        ("0", 20),
    ]
}

fn says(command: &str) -> &'static str {
    match command {
        "+" => "16 MB more",
        "-" => "16 MB less",
        "0" => "1 page written",
        "1" => "10 % written",
        "5" => "50 % written",
        LEFT_ALONE => LEFT_ALONE,
        REST => REST,
        _ => "all written",
    }
}

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("rio-growth", "Bytes in Rio");
    let program = guest::compile(bench, &guest::RESIDENT)?;
    let native_run = Run::new(bench, Under::Nothing);
    let hosted_run = Run::new(bench, Under::Dcrun);
    let mut native = native_run.start(&program, &[START_MB])?;
    let mut hosted = hosted_run.start(&program, &[START_MB])?;

    let mut table = Table::new(
        "MB after each step",
        &[
            "interval",
            "step",
            "native resident",
            "dirty in the interval",
            "Rio in use",
            "Rio allocated",
            "program, hosted",
            "run in all",
            "ratio to native",
        ],
    );
    let mut lines: [Vec<(f64, f64)>; 4] = Default::default();
    let (mut most_native, mut most_hosted, mut last_ratio) = (0.0f64, 0.0f64, f64::NAN);
    let mut cold_ratio = f64::NAN;
    let mut first_write = Table::new(
        "ns for the first write to a page after it was left alone",
        &["memory", "native", "hosted"],
    );
    let mut pages_before = 0.0;
    let mut interval = 0;
    for (command, count) in steps(bench) {
        bench.say(&format!("rio-growth: {}", says(command)));
        for nth in 0..count {
            if command == LEFT_ALONE {
                leave_alone(&hosted_run, &mut native, &mut hosted, Until::Asleep)?;
                first_write.row(write_all("held twice", &mut native, &mut hosted)?);
                leave_alone(&hosted_run, &mut native, &mut hosted, Until::Folded)?;
            } else {
                let command = if command == REST {
                    std::thread::sleep(REST_TIME);
                    "0"
                } else {
                    command
                };
                answer(&mut native, command)?;
                answer(&mut hosted, command)?;
            }
            // The answer is a commit of its own; what follows it is small.
            let held = Held::by(&hosted_run, native.pid(), hosted.pid())?;
            let dirty = (held.pages_copied - pages_before).max(0.0) * PAGE / MB;
            pages_before = held.pages_copied;
            let ratio = held.in_all() / held.native;
            most_native = most_native.max(held.native);
            most_hosted = most_hosted.max(held.in_all());
            last_ratio = ratio;
            if command == LEFT_ALONE {
                cold_ratio = ratio;
                first_write.row(write_all("folded", &mut native, &mut hosted)?);
            }
            let x = interval as f64;
            lines[0].push((x, held.native));
            lines[1].push((x, dirty));
            lines[2].push((x, held.rio_used));
            lines[3].push((x, held.in_all()));
            if nth + 1 == count || interval == 0 {
                table.row([
                    Cell::whole(interval as u64),
                    Cell::text(says(command)),
                    Cell::Figure(held.native, 1),
                    Cell::Figure(dirty, 1),
                    Cell::Figure(held.rio_used, 1),
                    Cell::Figure(held.rio_allocated, 1),
                    Cell::Figure(held.program, 1),
                    Cell::Figure(held.in_all(), 1),
                    Cell::Figure(ratio, 2),
                ]);
            }
            interval += 1;
        }
    }
    native.finish()?;
    hosted.finish()?;

    let mut chart = Chart::new(
        "rio-growth",
        "Memory of a run: growing, then 1 page, 10 %, 50 %, all written, left alone, then less, and rest",
        Axis::new("interval", Kind::Linear),
        Axis::new("MB", Kind::Linear),
    );
    let names = [
        "resident, native",
        "dirty in the interval",
        "in use in Rio",
        "the run in all",
    ];
    for (name, line) in names.into_iter().zip(lines) {
        chart.line(name, line);
    }
    report.charts.push(chart);
    report.tables.push(table);
    report.tables.push(first_write);
    report.goal(
        "memory of a run against native, the most of each",
        2.1,
        "x",
        most_hosted / most_native,
    );
    report.goal(
        "the same when all but one page was left alone, cold memory folded",
        1.3,
        "x",
        cold_ratio,
    );
    report.goal(
        "the same at the end, when memory was given back",
        2.1,
        "x",
        last_ratio,
    );
    report.note(
        "`in use` are frames with a committed page, and the journal's bytes so far; `allocated` \
         are the bytes that the image's file takes. The run in all is the image, the program's \
         private memory and files, and the keeper.",
    );
    Ok(report)
}

enum Until {
    /// Nothing is hot any more, and nothing folded yet.
    Asleep,
    Folded,
}

/// Both programs write one page now and then, for a time.
fn leave_alone(
    run: &Run<'_>,
    native: &mut Conversation,
    hosted: &mut Conversation,
    until: Until,
) -> Outcome<()> {
    let from = Instant::now();
    let most = match until {
        Until::Asleep => Duration::from_secs(3),
        Until::Folded => Duration::from_secs(90),
    };
    let mut turn = 0;
    while from.elapsed() < most {
        answer(native, "0")?;
        answer(hosted, "0")?;
        std::thread::sleep(Duration::from_millis(4));
        turn += 1;
        if matches!(until, Until::Folded) && turn % 200 == 0 {
            let held = Held::by(run, native.pid(), hosted.pid())?;
            if held.program < held.native / 10.0 {
                break;
            }
        }
    }
    Ok(())
}

/// How long a page takes if both write all of their memory.
fn write_all(
    memory: &str,
    native: &mut Conversation,
    hosted: &mut Conversation,
) -> Outcome<[Cell; 3]> {
    let mut row = [Cell::text(memory), Cell::whole(0), Cell::whole(0)];
    for (guest, cell) in [native, hosted].into_iter().zip(&mut row[1..]) {
        guest.say("t")?;
        let line = guest.hear()?;
        let ns: Option<u64> = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        *cell = Cell::whole(ns.doing(|| format!("time in the answer {line:?}"))?);
    }
    Ok(row)
}

/// What the two programs hold, in MB.
struct Held {
    native: f64,
    program: f64,
    keeper: f64,
    rio_used: f64,
    rio_allocated: f64,
    pages_copied: f64,
}

impl Held {
    fn by(run: &Run<'_>, native: Pid, keeper: Pid) -> Outcome<Held> {
        let stats = run.stats()?;
        let count = |key: &str| stats[key].as_f64().unwrap_or(f64::NAN);
        let worker = run.worker()?;
        Ok(Held {
            native: resident_mb(native, &["RssAnon", "RssFile"])?,
            // The mapping of Rio is shared memory, and counted once, as the image.
            program: resident_mb(worker, &["RssAnon", "RssFile"])?,
            keeper: resident_mb(keeper, &["RssAnon", "RssFile"])?,
            rio_used: count("frames_used") * PAGE / MB,
            rio_allocated: count("image_bytes") / MB,
            pages_copied: count("pages_copied"),
        })
    }

    fn in_all(&self) -> f64 {
        self.program + self.keeper + self.rio_allocated
    }
}

fn resident_mb(pid: Pid, kinds: &[&str]) -> Outcome<f64> {
    let file = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&file).doing(|| format!("read {file}"))?;
    let kb: f64 = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let value = value.split_whitespace().next()?;
            kinds.contains(&name).then(|| value.parse::<f64>().ok())?
        })
        .sum();
    Ok(kb / 1024.0)
}
