//! `vista inspect IMAGE` and `vista check IMAGE`: what is in an image, and whether it is sound.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use vista::inspect::inspect;
use vistagrams::inspect::messages;

const USAGE: &str = "\
usage: vista inspect [--json] IMAGE   header, log, heaps, what a recovery would do; message tables
       vista check [--json] IMAGE     says nothing and exits 0 if the image is sound

Neither changes the image, nor opens one that a process has open for writing.
Exit status: 0 sound, 1 not sound or not readable, 2 wrong usage.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|&argument| argument != "--json")
        .collect();
    match words[..] {
        ["inspect", path] => run(path, json, true),
        ["check", path] => run(path, json, false),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(path: &str, json: bool, tell: bool) -> ExitCode {
    let report = match inspect(Path::new(path)) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("vista: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut sound = true;
    let tables = match messages(Path::new(path)) {
        Ok(tables) => tables,
        // What a transaction was changing when it died may be anything; opening puts it back.
        Err(error) if report.summary.tail > 0 => {
            eprintln!("vista: {path}: as the crash left them: {error}");
            None
        }
        Err(error) => {
            eprintln!("vista: {path}: {error}");
            sound = false;
            None
        }
    };
    match (tell || json, json) {
        (_, true) => {
            let text = report.json();
            let tables = tables.map_or(String::new(), |t| format!(",\"messages\":{}", t.json()));
            println!("{}{tables}}}", text.strip_suffix('}').unwrap_or(&text));
        }
        (true, false) => {
            print!("{report}");
            tables.inspect(|tables| print!("{tables}"));
        }
        (false, false) => {}
    }
    for fault in report.faults() {
        eprintln!("vista: {path}: {fault}");
        sound = false;
    }
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
