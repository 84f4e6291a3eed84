//! The protocols side by side: figures 6.3 to 6.7 of the thesis, and whether
//! `auto` finds the best of them.
//!
//! Programs with different mixes of events run under each protocol, with commits
//! to memory and to a disk; what is typed at is typed at as fast as it takes the
//! keys. (A key every 100 ms: [`crate::typing`].)
//!
//! A single run scatters by more than the protocols differ. So each round goes
//! through all protocols, beginning with another one each time, and a protocol is
//! compared with the native run of its round. Beside it stands what scatters less:
//! the time that the runtime itself has counted in commits and syncs. With the
//! protocol that is best by that count, `auto` plays it off ([`crate::playoff`]).

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;

use crate::bench::Bench;
use crate::failure::{Doing, Failure, Outcome};
use crate::hosted::{Rio, Run, Under, spent};
use crate::mixes::{self, Mix};
use crate::playoff;
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
    let mut verdicts = playoff::table();
    // About as long as the sessions of figures 6.3 and 6.4, of two to eight thousand commits.
    let mut mixes = mixes::typed(bench.either(100, 2000))?;
    mixes.push(mixes::brief(bench.either(50, 400))?);
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
        commits_as_predicted(&mix, &all, &mut report);
        for rio in RIOS {
            playoff::play(bench, &mix, rio, &all, &mut report, &mut verdicts)?;
        }
        report.note(format!("{}: {}", mix.name, mix.says));
    }
    report.tables.insert(0, verdicts);
    report.note(
        "Time is that of typing, of batch programs all of it with the start and end of dcrun; a \
         ratio is the median over the rounds, each with its neighbour of the same round. Counted \
         is what the runtime itself saw in commits and syncs, and records at their price; by \
         count is native time and that. Auto and the best fixed protocol, this one twice, run side \
         by side until the medians of their ratios are known to 2 %, or 120 s long; what the best \
         compares to itself is how far a ratio of times can be trusted here. An answer is the \
         time from a key to the first byte shown.",
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
pub fn rounds(a: &Taken, b: &Taken) -> Sample {
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

/// The theory: committing for both reasons at once takes no more commits than for either.
fn commits_as_predicted(mix: &Mix, all: &All, report: &mut Report) {
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
}
