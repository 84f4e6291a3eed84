//! The programs that are run under each protocol: each with another mix of events.

use std::path::PathBuf;

use crate::bench::Bench;
use crate::failure::{Doing, Outcome};
use crate::guest;

/// A program and what is typed at it: nothing at a batch program.
pub struct Mix {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Of a batch program, in the place where it runs.
    pub input: Option<String>,
    pub keys: Vec<Vec<u8>>,
    /// A protocol under which it would take too long.
    pub not_under: Option<&'static str>,
    /// What the thesis measured with it or its like, or why it is here.
    pub says: &'static str,
}

/// What a person types at.
pub fn typed(strokes: usize) -> Outcome<Vec<Mix>> {
    Ok(vec![
        nvi(
            "nvi",
            strokes,
            "the thesis' nvi went from almost 8000 commits under CPVS to a handful under \
             logging, with 0-1 % on Rio and 12 % on disk at best (figure 6.3)",
        )?,
        Mix {
            name: "sc",
            program: guest::packaged("sc")?,
            arguments: vec!["sheet.sc".to_owned()],
            input: None,
            keys: sc_keys(strokes),
            not_under: None,
            says: "the thesis' oleo went from around 2000 commits to around 400 by committing for \
                   visible events only, and logging did not help it, because time was not logged \
                   (it is here); 39 % on disk at best (figure 6.4)",
        },
    ])
}

/// A session that is over before what `auto` pays to learn has spread.
pub fn brief(strokes: usize) -> Outcome<Mix> {
    let says = "the same session, so short that the commits that auto takes to learn are felt";
    nvi("nvi briefly", strokes, says)
}

fn nvi(name: &'static str, strokes: usize, says: &'static str) -> Outcome<Mix> {
    Ok(Mix {
        name,
        program: guest::packaged("nvi")?,
        arguments: vec!["text".to_owned()],
        input: None,
        keys: nvi_keys(strokes),
        not_under: None,
        says,
    })
}

/// What runs by itself.
pub fn batch(bench: &Bench) -> Outcome<Vec<Mix>> {
    let lua = |name, says, script: &str, times: usize| {
        let file = bench.file(&format!("{name}.lua"));
        std::fs::write(&file, script.replace("TIMES", &times.to_string()))
            .doing(|| format!("write {}", file.display()))?;
        Outcome::Ok(Mix {
            name,
            program: guest::packaged("lua5.4")?,
            arguments: vec![file.to_string_lossy().into_owned()],
            input: None,
            keys: Vec::new(),
            not_under: None,
            says,
        })
    };
    let rows = bench.either(40, 150);
    let sqlite = |name, says, arguments: &[&str], input| {
        Outcome::Ok(Mix {
            name,
            program: guest::packaged("sqlite3")?,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            input: Some(input),
            keys: Vec::new(),
            not_under: None,
            says,
        })
    };
    Ok(vec![
        lua(
            "lua computing",
            "reads the clock often and prints seldom, like the thesis' magic, which was helped \
             most by committing for visible events only (figure 6.5)",
            COMPUTES,
            bench.either(20, 60),
        )?,
        lua(
            "lua asking",
            "shows the time line by line: each visible event has chance before it, so that only \
             a log spares commits",
            ASKS,
            bench.either(100, 400),
        )?,
        Mix {
            not_under: Some("cand"),
            ..lua(
                "lua measuring",
                "reads the clock all the time, as a program does that measures itself: what is \
                 done at each event is too much (and a commit at each took minutes)",
                MEASURES,
                30,
            )?
        },
        sqlite(
            "sqlite3 answering",
            "shows a row after each statement and meets no chance in between: a log on disk is \
             flushed for nothing there",
            &["-batch", ":memory:"],
            answers(rows * 4),
        )?,
        sqlite(
            "sqlite3 inserting",
            "a database in a file, its journal made and unlinked at each statement: much of its \
             chance is of a kind that closes a log",
            &["-batch", "inserted.db"],
            inserts(rows),
        )?,
    ])
}

/// Computes, asks for the time and prints now and then.
const COMPUTES: &str = "\
local sum, clock = 0, 0
for step = 1, TIMES do
  for slice = 1, 50 do
    for i = 1, 4000 do sum = (sum * 31 + i) % 1000003 end
    clock = math.max(clock, os.time())
  end
  io.write(step, ' ', sum, '\\n')
  io.flush()
end
";

/// A little work and the time, again and again.
const ASKS: &str = "\
local sum = 0
for step = 1, TIMES do
  for i = 1, 8000 do sum = (sum * 31 + i) % 1000003 end
  io.write(step, ' ', sum, ' ', os.time(), '\\n')
  io.flush()
end
";

/// The time at every turn, and seldom a word.
const MEASURES: &str = "\
local clock = 0
for step = 1, TIMES do
  for i = 1, 20000 do clock = math.max(clock, os.time()) end
  io.write(step, '\\n')
  io.flush()
end
";

fn answers(rows: usize) -> String {
    let mut sql = String::from("CREATE TABLE t(a, b);\n");
    for n in 0..rows {
        sql += &format!(
            "INSERT INTO t VALUES({n}, {}); SELECT sum(b) FROM t;\n",
            n * n % 97
        );
    }
    sql
}

fn inserts(rows: usize) -> String {
    // What is made durable is the same natively, and no business of a protocol.
    let mut sql = String::from("PRAGMA synchronous = OFF; CREATE TABLE t(a, b);\n");
    for n in 0..rows {
        sql += &format!(
            "INSERT INTO t VALUES({n}, {}); SELECT sum(b) FROM t;\n",
            n * n % 97
        );
    }
    sql
}

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
