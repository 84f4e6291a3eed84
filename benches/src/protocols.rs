//! The protocols side by side: figures 6.3 to 6.7 of the thesis, and whether
//! `auto` finds the best of them.
//!
//! Programs with different mixes of events run under each protocol, with commits
//! to memory and to a disk; what is typed at is typed at as fast as it takes the
//! keys. (A key every 100 ms: [`crate::typing`].)
//!
//! A single run scatters by more than the protocols differ. So each round goes
//! through all protocols, beginning with another one each time, and two protocols
//! are compared round by round: the median of those ratios says which is the
//! faster one, and their quartiles say what that is worth. Beside it stands what
//! hardly scatters: the time that the runtime itself has counted in commits and
//! syncs, and the price of its records, on top of the native time. By that count
//! the best fixed protocol is chosen, with which `auto` is compared both ways.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;

use crate::bench::Bench;
use crate::failure::{Doing, Failure, Outcome};
use crate::hosted::{Rio, Run, Under, spent};
use crate::mixes::{self, Mix};
use crate::report::{Cell, Picture, Report, Table};
use crate::sample::Sample;
use crate::space::{self, Place};
use crate::typist::{Pace, type_at};

pub const PROTOCOLS: [&str; 8] = [
    "cpvs",
    "cand",
    "cbndvs",
    "cand-log",
    "cbndvs-log",
    "cpv-2pc",
    "cbndv-2pc",
    "auto",
];
pub const RIOS: [Rio; 2] = [Rio::Tmpfs, Rio::Disk];

/// Of one protocol and storage, over the rounds.
#[derive(Default)]
pub struct Taken {
    /// What the program had to do: of what is typed at, the typing; else all.
    pub seconds: Vec<f64>,
    /// From the start of the command to its end.
    pub wall_s: Vec<f64>,
    /// In commits and syncs, as the runtime counted it, ms.
    pub counted_ms: Vec<f64>,
    pub answer_us: Vec<f64>,
    pub stats: Value,
}

/// Protocol and storage; natively neither.
pub type Key = (Option<&'static str>, Option<Rio>);
pub type All = BTreeMap<Key, Taken>;
pub const NATIVE: Key = (None, None);

pub fn keys() -> Vec<Key> {
    let hosted = PROTOCOLS.into_iter();
    let hosted = hosted.flat_map(|name| RIOS.map(|rio| (Some(name), Some(rio))));
    std::iter::once(NATIVE).chain(hosted).collect()
}

pub fn under((protocol, rio): Key) -> Under {
    match (protocol, rio) {
        (Some(protocol), Some(rio)) => Under::Protocol(protocol, rio),
        _ => Under::Nothing,
    }
}

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("protocols", "The protocols side by side");
    let mut verdicts = verdict_table();
    let mut mixes = mixes::typed(bench.either(100, 400))?;
    mixes.extend(mixes::batch(bench)?);
    for mix in mixes {
        let mut all = All::new();
        let keys = keys();
        for round in 0..bench.either(3, 7) {
            bench.say(&format!("protocols: {}, round {}", mix.name, round + 1));
            for nth in 0..keys.len() {
                // 5 and the number of keys have no common divisor.
                let key = keys[(nth + round * 5) % keys.len()];
                if key.0.is_some() && key.0 == mix.not_under {
                    continue;
                }
                one(bench, &mix, Pace::AsTaken, key, all.entry(key).or_default())?;
            }
        }
        report.tables.push(table(&mix, &all));
        report.pictures.push(picture(&mix, &all));
        verdict(&mix, &all, &mut report, &mut verdicts);
        report.note(format!("{}: {}", mix.name, mix.says));
    }
    report.tables.insert(0, verdicts);
    report.note(
        "Time is that of typing, of batch programs all of it with the start and end of dcrun; a \
         ratio is the median over the rounds, each with its neighbour of the same round. Counted \
         is what the runtime itself saw in commits and syncs, and records at their price; by \
         count is native time and that. An answer is the time from a key to \
         the first byte shown.",
    );
    Ok(report)
}

/// Runs it once.
pub fn one(bench: &Bench, mix: &Mix, pace: Pace, key: Key, taken: &mut Taken) -> Outcome<()> {
    let under = under(key);
    let run = Run::new(bench, under);
    let place = bench.file(&format!("place-{}", run.name));
    std::fs::create_dir_all(&place).doing(|| format!("make {}", place.display()))?;
    std::fs::write(place.join("sheet.sc"), "let A0 = 1\n").doing(|| "write sheet.sc".into())?;
    let mut command = run.command(&mix.program)?;
    command.args(&mix.arguments).current_dir(&place);
    let failed = |why: String| Failure::new(format!("{}: {why}{}", mix.name, run.complaint()));
    if mix.keys.is_empty() {
        let input = place.join("input");
        let text = mix.input.as_deref().unwrap_or_default();
        std::fs::write(&input, text).doing(|| "write the input".into())?;
        let input = std::fs::File::open(&input).doing(|| "open the input".into())?;
        command.stdin(Stdio::from(input));
        let (done, spent) = spent(|| command.output().doing(|| mix.name.to_owned()))?;
        if !done.status.success() {
            return Err(failed(done.status.to_string()));
        }
        taken.wall_s.push(spent.wall.as_secs_f64());
        taken.seconds.push(spent.wall.as_secs_f64());
    } else {
        let typed =
            type_at(&run, &command, &mix.keys, pace).map_err(|why| failed(why.to_string()))?;
        taken.wall_s.push(typed.wall.as_secs_f64());
        taken.seconds.push(typed.typing.as_secs_f64());
        taken.answer_us.extend(typed.answer_us.values());
    }
    if under != Under::Nothing {
        taken.stats = run.stats()?;
        let us = |what: &str| taken.stats[what].as_f64().unwrap_or(f64::NAN);
        let counted = us("commit_total_us") + us("log_flush_total_us");
        taken.counted_ms.push(counted / 1000.0);
    }
    let _ = std::fs::remove_dir_all(&place);
    Ok(())
}

pub fn count(taken: &Taken, what: &str) -> u64 {
    taken.stats[what].as_u64().unwrap_or(0)
}

/// How much longer `a` takes than `b`, round by round.
fn rounds(a: &Taken, b: &Taken) -> Sample {
    let pairs = a.seconds.iter().zip(&b.seconds);
    Sample::new(pairs.map(|(a, b)| a / b).collect())
}

fn ratio(all: &All, key: Key) -> f64 {
    match (all.get(&key), all.get(&NATIVE)) {
        (Some(taken), Some(native)) => rounds(taken, native).median(),
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
            "syncs of the log",
            "bytes logged",
            "pages copied",
            "time, ms",
            "against native",
            "counted, ms",
            "answer p50, us",
            "answer p99, us",
        ],
    );
    for (&(protocol, rio), taken) in all {
        let answers = Sample::new(taken.answer_us.clone());
        let median = |values: &[f64]| Sample::new(values.to_vec()).median();
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
            whole("log_flushes"),
            whole("logged_bytes"),
            whole("pages_copied"),
            Cell::Figure(median(&taken.seconds) * 1000.0, 1),
            Cell::Figure(ratio(all, (protocol, rio)), 3),
            Cell::Figure(median(&taken.counted_ms), 2),
            Cell::Figure(answers.median(), 0),
            Cell::Figure(answers.p99(), 0),
        ]);
    }
    table
}

fn picture(mix: &Mix, all: &All) -> Picture {
    let places: Vec<Place> = PROTOCOLS
        .into_iter()
        .map(|protocol| {
            let key = |rio| (Some(protocol), Some(rio));
            let commits = all
                .get(&key(Rio::Tmpfs))
                .map_or(0, |taken| count(taken, "commits"));
            let lines = vec![
                format!("{commits} commits"),
                format!(
                    "time: {:.2} memory, {:.2} disk",
                    ratio(all, key(Rio::Tmpfs)),
                    ratio(all, key(Rio::Disk)),
                ),
            ];
            Place { protocol, lines }
        })
        .collect();
    let title = format!("{}: commits, and time against native", mix.name);
    Picture {
        file: format!("protocols-{}", mix.name.replace(' ', "-")),
        svg: space::svg(&title, &places),
        title,
    }
}

fn verdict_table() -> Table {
    Table::new(
        "auto against the fixed protocols",
        &[
            "program",
            "rio",
            "best by count",
            "counted, ms",
            "auto, ms",
            "auto against the best, by count",
            "measured",
            "quartiles",
            "minima",
            "worst",
            "worst against auto",
            "auto ended as",
            "moves",
        ],
    )
}

/// What a protocol has added to a run, ms, round by round: in commits and syncs as
/// counted, and in records at the price that `auto` has measured here.
fn added_ms(taken: &Taken, auto: &Taken) -> Vec<f64> {
    // What `auto` thinks of them until it has seen some.
    const RECORD_US: f64 = 0.15;
    let record_us = auto.stats["cost_record_us"].as_f64().unwrap_or(RECORD_US);
    let records = count(taken, "logged_events") as f64 * record_us / 1000.0;
    taken.counted_ms.iter().map(|ms| ms + records).collect()
}

/// `auto` against the best and the worst, and what the theory says of the counts.
fn verdict(mix: &Mix, all: &All, report: &mut Report, table: &mut Table) {
    let commits = |protocol| {
        let taken = all.get(&(Some(protocol), Some(Rio::Tmpfs)));
        taken.map_or(f64::NAN, |taken| count(taken, "commits") as f64)
    };
    report.goal(
        format!(
            "{}: commits of cbndvs, against the fewer of cpvs and cand",
            mix.name
        ),
        1.0,
        "x",
        // What was not measured is more than any.
        commits("cbndvs") / commits("cpvs").min(commits("cand")),
    );
    for rio in RIOS {
        let (Some(auto), Some(native)) = (all.get(&(Some("auto"), Some(rio))), all.get(&NATIVE))
        else {
            continue;
        };
        let mut fixed: Vec<(&str, &Taken)> = PROTOCOLS
            .iter()
            .filter(|&&name| name != "auto")
            .filter_map(|&name| Some((name, all.get(&(Some(name), Some(rio)))?)))
            .collect();
        // Chosen by what hardly scatters: the fastest of seven that scatter would be
        // the luckiest one.
        let added = |taken: &Taken| Sample::new(added_ms(taken, auto)).median();
        fixed.sort_by(|a, b| added(a.1).total_cmp(&added(b.1)));
        let (Some(best), Some(worst)) = (fixed.first(), fixed.last()) else {
            continue;
        };
        let native_ms = Sample::new(native.seconds.clone()).median() * 1000.0;
        // Disks have good and bad times: a round is compared with itself.
        let by_count: Vec<f64> = added_ms(auto, auto)
            .iter()
            .zip(added_ms(best.1, auto))
            .map(|(auto, best)| (native_ms + auto) / (native_ms + best))
            .collect();
        let by_count = Sample::new(by_count).median();
        let measured = rounds(auto, best.1);
        let least = |taken: &Taken| Sample::new(taken.seconds.clone()).min();
        table.row([
            Cell::text(mix.name),
            Cell::text(rio.name()),
            Cell::text(best.0),
            Cell::Figure(added(best.1), 2),
            Cell::Figure(added(auto), 2),
            Cell::Figure(by_count, 3),
            Cell::Figure(measured.median(), 3),
            Cell::text(format!(
                "{:.3}-{:.3}",
                measured.quantile(0.25),
                measured.quantile(0.75)
            )),
            Cell::Figure(least(auto) / least(best.1), 3),
            Cell::text(worst.0),
            Cell::Figure(rounds(worst.1, auto).median(), 2),
            Cell::text(auto.stats["protocol_now"].as_str().unwrap_or("-")),
            Cell::whole(count(auto, "protocol_moves")),
        ]);
        for (how, got) in [("by count", by_count), ("measured", measured.median())] {
            report.goal(
                format!(
                    "{}, {}: auto against the best fixed protocol, {how}",
                    mix.name,
                    rio.name()
                ),
                1.05,
                "x",
                got,
            );
        }
    }
}
