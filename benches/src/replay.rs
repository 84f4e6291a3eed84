//! Recovery under logging against the length of the log.
//!
//! The guest asks for the time so many times in one interval, under CBNDVS-LOG,
//! which commits for none of them; then it is killed. The recovery gives all the
//! results back before the program goes on, so it takes as long as the log is
//! long, and the log has a bound: a commit when it grows past it.

use serde_json::Value;

use crate::bench::Bench;
use crate::chart::{Axis, Chart};
use crate::failure::{Failure, Outcome};
use crate::guest;
use crate::hosted::{Rio, Run, Under, kill_now};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;
use crate::scale::Kind;

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("replay", "Recovery and the log");
    let mut table = Table::new(
        "CBNDVS-LOG, a program that asks for the time",
        &[
            "asked",
            "logged since the commit",
            "KB of log",
            "commits for the bound",
            "kills",
            "recovery min, ms",
            "p50, ms",
            "ns a record",
        ],
    );
    let mut line = Vec::new();
    let program = guest::compile(bench, &guest::CHANCE)?;
    let lengths: &[u64] = bench.either(
        &[0, 1_000, 30_000, 200_000],
        &[0, 100, 1_000, 3_000, 10_000, 30_000, 60_000, 200_000],
    );
    let mut idle = f64::NAN;
    for &asked in lengths {
        bench.say(&format!("replay: {asked} records"));
        let taken = take(bench, &program, asked, bench.either(4, 20))?;
        let (replayed, least) = (taken.replayed, taken.recovery_ms.min());
        if asked == 0 {
            idle = least;
        }
        table.row([
            Cell::whole(asked),
            Cell::whole(replayed),
            Cell::Figure(taken.log_kb, 1),
            Cell::whole(taken.bound_commits),
            Cell::whole(taken.recovery_ms.len()),
            Cell::Figure(least, 2),
            Cell::Figure(taken.recovery_ms.median(), 2),
            match replayed {
                10_000.. => Cell::Figure((least - idle) * 1e6 / replayed as f64, 0),
                _ => Cell::text("-"),
            },
        ]);
        if replayed > 0 {
            line.push((replayed as f64, taken.recovery_ms.median()));
        }
    }
    let mut chart = Chart::new(
        "replay",
        "Recovery against the length of the log",
        Axis::new("records", Kind::Log),
        Axis::new("ms, median", Kind::Log),
    );
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    chart.line("CBNDVS-LOG, warm", line);
    report.tables.push(table);
    report.charts.push(chart);
    report.note(
        "The recovery is counted by the keeper, from the death it saw until the last result was \
         given back. What is logged since the commit is what a recovery replays: behind the \
         bound a commit begins a new log.",
    );
    Ok(report)
}

struct Taken {
    recovery_ms: Sample,
    /// Records that one recovery gave back.
    replayed: u64,
    log_kb: f64,
    bound_commits: u64,
}

fn take(bench: &Bench, program: &std::path::Path, asked: u64, kills: usize) -> Outcome<Taken> {
    let run = Run::new(bench, Under::Protocol("cbndvs-log", Rio::Tmpfs));
    let mut talk = run.start(program, &[])?;
    ask(&mut talk, asked)?;
    let before = run.stats()?;
    for _ in 0..kills {
        kill_now(run.worker()?)?;
        // Its answer says that the log has been given back. It adds a few records.
        ask(&mut talk, 0)?;
    }
    let after = run.stats()?;
    talk.finish()?;
    let count = |stats: &Value, what: &str| stats[what].as_u64().unwrap_or(0);
    let recovery_ms = after["recovery_us"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .map(|us| us / 1000.0)
        .collect();
    let logged = count(&before, "logged_events").max(1);
    let replayed = count(&after, "replayed_events") / kills as u64;
    Ok(Taken {
        recovery_ms: Sample::new(recovery_ms),
        replayed,
        log_kb: count(&before, "logged_bytes") as f64 / 1024.0 * replayed as f64 / logged as f64,
        bound_commits: count(&before, "log_bound_commits"),
    })
}

fn ask(talk: &mut crate::hosted::Conversation, asked: u64) -> Outcome<()> {
    talk.say(&format!("{asked}\n"))?;
    let answer = talk.hear()?;
    match answer.split(' ').next() == Some(&asked.to_string()) {
        true => Ok(()),
        false => Err(Failure::new(format!("asked {asked}, answered {answer:?}"))),
    }
}
