//! Wall time from starting a program to its end, over native.

use std::path::PathBuf;

use crate::bench::Bench;
use crate::failure::Outcome;
use crate::guest;
use crate::hosted::{Run, Under, spent};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;

const TARGET_MS: f64 = 20.0;

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("startup", "Start and end of a program");
    let mut table = Table::new(
        "ms from start to end",
        &[
            "program",
            "native min",
            "native p50",
            "hosted min",
            "hosted p50",
            "more, min",
            "more, p50",
            "target",
        ],
    );
    let programs: [(&str, Outcome<PathBuf>, &[&str]); 4] = [
        ("true", guest::packaged("true"), &[]),
        ("hello, static", guest::compile(bench, &guest::HELLO), &[]),
        (
            "python3 -c pass",
            guest::packaged("python3"),
            &["-c", "pass"],
        ),
        ("node -e 0", guest::packaged("node"), &["-e", "0"]),
    ];
    for (says, program, arguments) in programs {
        bench.say(&format!("startup: {says}"));
        let program = match program {
            Ok(program) => program,
            Err(why) => {
                report.note(format!("{says}: {why}"));
                continue;
            }
        };
        let (mut native, mut hosted) = (Vec::new(), Vec::new());
        for _ in 0..bench.either(4, 25) {
            for (under, taken) in [(Under::Nothing, &mut native), (Under::Dcrun, &mut hosted)] {
                let run = Run::new(bench, under);
                let (_, spent) = spent(|| run.output(&program, arguments))?;
                taken.push(spent.wall.as_secs_f64() * 1000.0);
            }
        }
        let (native, hosted) = (Sample::new(native), Sample::new(hosted));
        let more = hosted.median() - native.median();
        table.row([
            Cell::text(says),
            Cell::Figure(native.min(), 2),
            Cell::Figure(native.median(), 2),
            Cell::Figure(hosted.min(), 2),
            Cell::Figure(hosted.median(), 2),
            Cell::Figure(hosted.min() - native.min(), 2),
            Cell::Figure(more, 2),
            Cell::text(format!("<= {TARGET_MS} more")),
        ]);
        report.goal(format!("{says}, over native, p50"), TARGET_MS, "ms", more);
    }
    report.tables.push(table);
    report.note("Hosted times have the start and end of dcrun itself in them.");
    Ok(report)
}
