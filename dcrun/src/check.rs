//! `dcrun check TRACE`: does a run's trace uphold theorem 2?

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

use protocols_check::Traces;

use crate::message::{Failure, Outcome, printable};

/// Prints the verdict; exit status 0 if the trace is consistent, 1 if not.
pub fn check(path: &Path) -> Outcome<u8> {
    let says = |what: String| Failure::own(format!("trace {}: {what}", path.display()));
    let file = File::open(path).map_err(|error| says(format!("open it: {error}")))?;
    let report = protocols_check::check(Traces::one(BufReader::new(file)))
        .map_err(|error| says(error.to_string()))?;
    if report.events == 0 {
        return Err(says(
            "there is no event in it; `dcrun --trace FILE` writes one".to_owned(),
        ));
    }
    // It names calls as the trace does, which may be anybody's.
    let text = report.to_string();
    let lines: Vec<String> = text.lines().map(printable).collect();
    let _ = writeln!(std::io::stdout(), "{}", lines.join("\n"));
    Ok(u8::from(!report.is_consistent()))
}
