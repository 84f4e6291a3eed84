//! The protocols side by side: figures 6.3 to 6.7 of the thesis.
//!
//! nvi and sc (in place of oleo) are typed at, and a compute-bound program
//! prints now and then, under each protocol, with commits to memory and to a
//! disk. Typing is a key every 100 ms, as in the thesis, and as fast as the
//! program answers. Rounds go through all protocols, so that each sees the same
//! machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::bench::Bench;
use crate::failure::{Doing, Outcome};
use crate::guest;
use crate::hosted::{Rio, Run, Under, spent};
use crate::report::{Cell, Picture, Report, Table};
use crate::sample::Sample;
use crate::space::{self, Place};
use crate::typist::{Pace, type_at};

const PROTOCOLS: [&str; 8] = [
    "cpvs",
    "cand",
    "cbndvs",
    "cand-log",
    "cbndvs-log",
    "cpv-2pc",
    "cbndv-2pc",
    "auto",
];
const RIOS: [Rio; 2] = [Rio::Tmpfs, Rio::Disk];

/// A program and what is typed at it: nothing at a batch program.
struct Workload {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    keys: Vec<Vec<u8>>,
    /// What the thesis measured with it or its like.
    thesis: &'static str,
}

/// Of one protocol and storage, over the rounds.
#[derive(Default)]
struct Taken {
    wall_s: Vec<f64>,
    answer_us: Vec<f64>,
    stats: Value,
}

type Key = (&'static str, Option<&'static str>, Option<Rio>);

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("protocols", "The protocols side by side");
    for workload in workloads(bench)? {
        let mut taken: BTreeMap<Key, Taken> = BTreeMap::new();
        for pace in paces(&workload) {
            for round in 0..rounds(bench, pace.0) {
                bench.say(&format!(
                    "protocols: {}, {}, round {}",
                    workload.name,
                    pace.0,
                    round + 1
                ));
                round_of(bench, &workload, pace, &mut taken)?;
            }
        }
        for pace in paces(&workload) {
            report.tables.push(table(&workload, pace.0, &taken));
        }
        report.pictures.push(picture(&workload, &taken));
        goals(&workload, &taken, &mut report);
        report.note(format!("{}: {}", workload.name, workload.thesis));
    }
    report.note(
        "Run time is the minimum over the rounds against the native minimum, start and end of \
         dcrun included. An answer is the time from a key to the first byte shown.",
    );
    Ok(report)
}

const SLOW: &str = "a key every 100 ms";
const FAST: &str = "keys as fast as they are answered";
const BATCH: &str = "batch";

fn paces(workload: &Workload) -> Vec<(&'static str, Pace)> {
    if workload.keys.is_empty() {
        return vec![(BATCH, Pace::AsAnswered)];
    }
    vec![
        (FAST, Pace::AsAnswered),
        (SLOW, Pace::Every(Duration::from_millis(100))),
    ]
}

fn rounds(bench: &Bench, pace: &str) -> usize {
    match pace {
        SLOW => 1,
        _ => bench.either(1, 5),
    }
}

fn round_of(
    bench: &Bench,
    workload: &Workload,
    (says, pace): (&'static str, Pace),
    taken: &mut BTreeMap<Key, Taken>,
) -> Outcome<()> {
    one(
        bench,
        workload,
        pace,
        Under::Nothing,
        taken.entry((says, None, None)).or_default(),
    )?;
    for protocol in PROTOCOLS {
        for rio in RIOS {
            let under = Under::Protocol(protocol, rio);
            let key = (says, Some(protocol), Some(rio));
            one(bench, workload, pace, under, taken.entry(key).or_default())?;
        }
    }
    Ok(())
}

fn one(
    bench: &Bench,
    workload: &Workload,
    pace: Pace,
    under: Under,
    taken: &mut Taken,
) -> Outcome<()> {
    let run = Run::new(bench, under);
    let place = bench.file("typed");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).doing(|| format!("make {}", place.display()))?;
    std::fs::write(place.join("sheet.sc"), "let A0 = 1\n").doing(|| "write sheet.sc".into())?;
    let mut command = run.command(&workload.program)?;
    command.args(&workload.arguments).current_dir(&place);
    if workload.keys.is_empty() {
        let (done, spent) = spent(|| command.output().doing(|| workload.name.to_owned()))?;
        if !done.status.success() {
            return Err(crate::failure::Failure::new(format!(
                "{}: {}{}",
                workload.name,
                done.status,
                run.complaint()
            )));
        }
        taken.wall_s.push(spent.wall.as_secs_f64());
    } else {
        let typed = type_at(&command, &workload.keys, pace).map_err(|why| {
            crate::failure::Failure::new(format!("{}: {why}{}", workload.name, run.complaint()))
        })?;
        taken.wall_s.push(typed.spent.wall.as_secs_f64());
        taken.answer_us.extend(typed.answer_us.values());
    }
    if under != Under::Nothing {
        taken.stats = run.stats()?;
    }
    Ok(())
}

fn workloads(bench: &Bench) -> Outcome<Vec<Workload>> {
    let strokes = bench.either(60, 300);
    let script = bench.file("sparse.lua");
    let steps = bench.either(20, 60);
    std::fs::write(&script, SPARSE.replace("STEPS", &steps.to_string()))
        .doing(|| format!("write {}", script.display()))?;
    Ok(vec![
        Workload {
            name: "nvi",
            program: guest::packaged("nvi")?,
            arguments: vec!["text".to_owned()],
            keys: nvi_keys(strokes),
            thesis: "the thesis' nvi went from almost 8000 commits under CPVS to a handful under \
                     logging, with 0-1 % on Rio and 12 % on disk at best (figure 6.3)",
        },
        Workload {
            name: "sc",
            program: guest::packaged("sc")?,
            arguments: vec!["sheet.sc".to_owned()],
            keys: sc_keys(strokes),
            thesis: "the thesis' oleo went from around 2000 commits to around 400 by committing for \
                     visible events only, and logging did not help it, because time was not logged \
                     (it is here); 39 % on disk at best (figure 6.4)",
        },
        Workload {
            name: "lua, computing",
            program: guest::packaged("lua5.4")?,
            arguments: vec![script.to_string_lossy().into_owned()],
            keys: Vec::new(),
            thesis: "reads the clock often and prints seldom, like the thesis' magic, which was \
                     helped most by committing for visible events only (figure 6.5)",
        },
    ])
}

/// Computes, asks for the time and prints now and then.
const SPARSE: &str = "\
local sum, clock = 0, 0
for step = 1, STEPS do
  for slice = 1, 50 do
    for i = 1, 4000 do sum = (sum * 31 + i) % 1000003 end
    clock = math.max(clock, os.time())
  end
  io.write(step, ' ', sum, '\\n')
  io.flush()
end
";

fn nvi_keys(strokes: usize) -> Vec<Vec<u8>> {
    let words = "the quick brown fox jumps over the lazy dog ";
    let mut keys = vec![b"i".to_vec()];
    for (key, nth) in words.bytes().cycle().zip(1..=strokes) {
        keys.push(vec![if nth % 60 == 0 { b'\r' } else { key }]);
    }
    keys.extend(
        [
            &b"\x1b"[..],
            b":",
            b"w",
            b"\r",
            b"0",
            b"d",
            b"w",
            b"u",
            b":",
            b"q",
            b"!",
            b"\r",
        ]
        .map(<[u8]>::to_vec),
    );
    keys
}

fn sc_keys(strokes: usize) -> Vec<Vec<u8>> {
    let cell = b"=A0+12\rj=7*6\rj";
    let mut keys: Vec<Vec<u8>> = cell
        .iter()
        .cycle()
        .take(strokes / cell.len() * cell.len())
        .map(|&key| vec![key])
        .collect();
    keys.extend([&b"q"[..], b"n"].map(<[u8]>::to_vec));
    keys
}

fn count(taken: &Taken, what: &str) -> u64 {
    taken.stats[what].as_u64().unwrap_or(0)
}

fn ratio(taken: &BTreeMap<Key, Taken>, key: Key) -> f64 {
    let least = |key: Key| {
        let walls = taken.get(&key).map(|taken| taken.wall_s.clone());
        Sample::new(walls.unwrap_or_default()).min()
    };
    least(key) / least((key.0, None, None))
}

fn table(workload: &Workload, pace: &'static str, taken: &BTreeMap<Key, Taken>) -> Table {
    let mut table = Table::new(
        format!("{}: {pace}", workload.name),
        &[
            "protocol",
            "rio",
            "nd events",
            "logged",
            "visible",
            "commits",
            "bytes logged",
            "pages copied",
            "run time against native",
            "answer p50, us",
            "answer p99, us",
        ],
    );
    for (&(of, protocol, rio), one) in taken.iter().filter(|(key, _)| key.0 == pace) {
        let answers = Sample::new(one.answer_us.clone());
        let whole = |what| match protocol {
            Some(_) => Cell::whole(count(one, what)),
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
            Cell::Figure(ratio(taken, (of, protocol, rio)), 3),
            Cell::Figure(answers.median(), 0),
            Cell::Figure(answers.p99(), 0),
        ]);
    }
    table
}

fn picture(workload: &Workload, taken: &BTreeMap<Key, Taken>) -> Picture {
    let paces = paces(workload);
    let places: Vec<Place> = PROTOCOLS
        .into_iter()
        .map(|protocol| {
            let mut lines = Vec::new();
            for (pace, _) in &paces {
                let key = |rio| (*pace, Some(protocol), Some(rio));
                if lines.is_empty() {
                    let commits = taken
                        .get(&key(Rio::Tmpfs))
                        .map_or(0, |one| count(one, "commits"));
                    lines.push(format!("{commits} commits"));
                }
                lines.push(format!(
                    "{}: {:.2} memory, {:.2} disk",
                    match *pace {
                        SLOW => "100 ms a key",
                        FAST => "fast",
                        _ => "run time",
                    },
                    ratio(taken, key(Rio::Tmpfs)),
                    ratio(taken, key(Rio::Disk)),
                ));
            }
            Place { protocol, lines }
        })
        .collect();
    let title = format!("{}: commits, and run time against native", workload.name);
    let name: String = workload
        .name
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    Picture {
        file: format!("protocols-{name}"),
        svg: space::svg(&title, &places),
        title,
    }
}

/// Beside targets.md: what the theory says of the counts, and `auto` against the best.
fn goals(workload: &Workload, taken: &BTreeMap<Key, Taken>, report: &mut Report) {
    let first = paces(workload)[0].0;
    let commits = |protocol| {
        let one = taken.get(&(first, Some(protocol), Some(Rio::Tmpfs)));
        one.map_or(f64::NAN, |one| count(one, "commits") as f64)
    };
    let least = commits("cpvs").min(commits("cand"));
    report.goal(
        format!(
            "{}: commits of cbndvs, against the fewer of cpvs and cand",
            workload.name
        ),
        1.0,
        "x",
        commits("cbndvs") / least,
    );
    for rio in RIOS {
        let fixed = PROTOCOLS.iter().filter(|&&name| name != "auto");
        let best = fixed
            .map(|&name| ratio(taken, (first, Some(name), Some(rio))))
            .fold(f64::INFINITY, f64::min);
        report.goal(
            format!(
                "{}, {}: auto against the best fixed protocol",
                workload.name,
                rio.name()
            ),
            1.05,
            "x",
            ratio(taken, (first, Some("auto"), Some(rio))) / best,
        );
    }
    if paces(workload).len() > 1 {
        for (rio, percent) in [(Rio::Tmpfs, 0.5), (Rio::Disk, 5.0)] {
            let best = PROTOCOLS
                .iter()
                .map(|&name| ratio(taken, (SLOW, Some(name), Some(rio))))
                .fold(f64::INFINITY, f64::min);
            report.goal(
                format!(
                    "{} at 100 ms a key, {}, best protocol: over native",
                    workload.name,
                    rio.name()
                ),
                percent,
                "%",
                (best - 1.0) * 100.0,
            );
        }
    }
}
