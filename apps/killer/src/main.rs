//! `killer KILLS RIO IMAGE PROGRAM`: the soak behind `scripts/soak-vista`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kills, rio, image, program] = &arguments[..] else {
        eprintln!("usage: killer KILLS RIO IMAGE PROGRAM");
        return ExitCode::from(2);
    };
    let Ok(kills) = kills.parse() else {
        eprintln!("killer: KILLS is not a number: {kills}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let seed = u64::from(std::process::id());
    match killer::torment(Path::new(program), Path::new(image), rio, kills, seed) {
        Ok(tally) => {
            let killer::Tally {
                kills,
                early,
                commits,
            } = tally;
            println!(
                "{program} on {rio}: {kills} kills ({early} in start or recovery), {commits} commits, \
                 0 inconsistent, {:.0} s, seed {seed}",
                begun.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("killer: {program} on {rio}: {error} (seed {seed})");
            ExitCode::FAILURE
        }
    }
}
