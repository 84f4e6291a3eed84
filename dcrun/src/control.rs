//! `dcrun kill` and `dcrun rm`: commands about a run that somebody else keeps.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use dc_image::run::Life;

use crate::image;
use crate::machine::shared::SharedLive;
use crate::machine::signals;
use crate::message::{Failure, Outcome, say};
use crate::run_directory;

/// How long the keeper may take to end by itself once its worker is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends worker and keeper; the run stays as it was at its last commit.
pub fn kill(name: &str) -> Outcome<u8> {
    let (run, record) = run_directory::existing(name)?;
    if run.alive().is_none() {
        return Err(Failure::own(format!(
            "{name}: this run is not alive; nothing was killed"
        )));
    }
    let live = match image::open(&record.image)? {
        Some(file) => Some(image::live(&file)?),
        None => None,
    };
    if let Some(live) = &live {
        live.kill_requested.store(1, Release);
    }
    let begun = Instant::now();
    while let Some(keeper) = run.alive() {
        let worker = live.as_ref().map_or(0, some_worker);
        let in_time = begun.elapsed() < PATIENCE;
        if worker > 0 && in_time {
            signals::send(worker, libc::SIGKILL);
        } else if !in_time {
            // The worker goes with it: it asked for that at its start.
            signals::send(keeper, libc::SIGKILL);
        }
        if begun.elapsed() > 2 * PATIENCE {
            return Err(Failure::own(format!(
                "{name}: keeper {keeper} does not die; see what it hangs in (/proc/{keeper}/stack)"
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(live) = &live {
        live.kill_requested.store(0, Relaxed);
    }
    say(&format!(
        "{name}: killed; `dcrun resume {name}` goes on with it"
    ));
    Ok(0)
}

/// A process of the run that lives; 0 if none does.
fn some_worker(live: &SharedLive) -> i32 {
    let all = live.processes().iter();
    all.filter(|p| p.life() == Life::Lives)
        .map(|p| p.real.load(Acquire))
        .find(|&pid| pid > 0)
        .unwrap_or(0)
}

/// Removes a run that is not alive.
pub fn remove(name: &str) -> Outcome<u8> {
    let run = run_directory::find(name)?;
    if !run.path.exists() {
        return Err(Failure::own(format!(
            "{name}: there is no run of this name; `dcrun ps` lists them"
        )));
    }
    run.lock(None)?;
    // A damaged record shall not keep a run from being removed.
    if let Ok(Some(record)) = run.record() {
        image::remove(&record.image)?;
    }
    run.remove()?;
    Ok(0)
}
