//! sqlite3 in memory, committing at each output write: what a commit costs a
//! real program.
//!
//! Every statement prints a row, so that every statement is a visible event
//! with input before it. The start of the program is taken out: the counters
//! are read after a first block of statements and again after the last.

use serde_json::Value;

use crate::bench::Bench;
use crate::failure::{Doing, Outcome};
use crate::guest;
use crate::hosted::{Run, Under};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;

const SETUP: &str = "create table t(k integer primary key, v text);\n";

/// us a commit, the median over runs; rows go into the report.
pub fn measure(bench: &Bench, report: &mut Report) -> Outcome<f64> {
    let program = guest::packaged("sqlite3")?;
    let statements = bench.either(500, 5000);
    let mut table = Table::new(
        "sqlite3 in memory, one insert and one row of output a statement",
        &[
            "run",
            "commits",
            "us a commit",
            "pages a commit",
            "of them hot",
            "hosted us a statement",
            "native us a statement",
        ],
    );
    let mut means = Vec::new();
    for nth in 1..=bench.either(2, 7) {
        bench.say(&format!("commit: sqlite3, run {nth}"));
        let native = Run::new(bench, Under::Nothing);
        let native_us = talk(&native, &program, statements)?.0;
        let hosted = Run::new(bench, Under::Dcrun);
        let (hosted_us, before, after) = talk(&hosted, &program, statements)?;
        let grown = |key: &str| number(&after, key) - number(&before, key);
        let commits = grown("commits");
        let mean_us = grown("commit_total_us") / commits;
        means.push(mean_us);
        table.row([
            Cell::whole(nth as u64),
            Cell::Figure(commits, 0),
            Cell::Figure(mean_us, 2),
            Cell::Figure(grown("pages_copied") / commits, 1),
            Cell::Figure(grown("pages_hot") / commits, 1),
            Cell::Figure(hosted_us, 1),
            Cell::Figure(native_us, 1),
        ]);
    }
    report.tables.push(table);
    report.note(
        "sqlite3: us a commit is the time that the runtime counted inside commits; the faults \
         between them are in the column of hosted statements, which also has the pipe's round trip.",
    );
    Ok(Sample::new(means).median())
}

/// us a statement, and the counters before and after the statements.
fn talk(
    run: &Run<'_>,
    program: &std::path::Path,
    statements: usize,
) -> Outcome<(f64, Value, Value)> {
    let mut sqlite = run.start(program, &["-batch", ":memory:"])?;
    sqlite.say(SETUP)?;
    let mut state = 1u64;
    let mut speak = |count: usize| -> Outcome<()> {
        for _ in 0..count {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let value = state >> 40;
            sqlite.say(&format!(
                "insert into t(v) values('value {value}') returning k;\n"
            ))?;
            sqlite.hear()?;
        }
        Ok(())
    };
    speak(100)?;
    let before = run.stats().unwrap_or_default();
    let begun = std::time::Instant::now();
    speak(statements)?;
    let each_us = begun.elapsed().as_secs_f64() * 1e6 / statements as f64;
    let after = run.stats().unwrap_or_default();
    sqlite.finish().doing(|| "end sqlite3".to_owned())?;
    Ok((each_us, before, after))
}

fn number(counters: &Value, key: &str) -> f64 {
    counters[key].as_f64().unwrap_or(f64::NAN)
}
