//! `dcrun kill` and `dcrun rm`: commands about a run that somebody else keeps.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use dc_image::run::Life;

use crate::machine::shared::SharedLive;
use crate::machine::{process, signals};
use crate::message::{Failure, Outcome, say};
use crate::run_directory::{self, Recognised, RunDirectory};
use crate::{found_images, image, removal};

/// From here on `rm` asks first.
const MUCH_BYTES: u64 = 1 << 30;

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
    if run.holder().is_some_and(|holder| holder <= 0) {
        return Err(Failure::own(format!(
            "{name}: its keeper is in another pid namespace, as in a container; end it there"
        )));
    }
    let live = match image::open(&record.image, &run)? {
        Some(file) => Some(image::live(&file)?),
        None => None,
    };
    end(&run, live.as_ref())?;
    say(&format!(
        "{name}: killed; `dcrun resume {name}` goes on with it"
    ));
    Ok(0)
}

/// Kills a run's worker until its keeper ends too.
pub fn end(run: &RunDirectory, live: Option<&SharedLive>) -> Outcome<()> {
    let name = &run.name;
    if let Some(live) = live {
        live.kill_requested.store(1, Release);
    }
    let begun = Instant::now();
    while let Some(keeper) = run.alive() {
        // A damaged image may name any process: only a child of the keeper is meant.
        let worker = live.map_or(0, |live| some_worker(live, keeper));
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
    if let Some(live) = live {
        live.kill_requested.store(0, Relaxed);
    }
    Ok(())
}

/// A process of the run that lives, a child of its keeper; 0 if there is none.
fn some_worker(live: &SharedLive, keeper: i32) -> i32 {
    let all = live.processes().iter();
    all.filter(|p| p.life() == Life::Lives)
        .map(|p| p.real.load(Acquire))
        .find(|&pid| pid > 0 && process::parent_of(pid) == Some(keeper))
        .unwrap_or(0)
}

/// Removes a run that is not alive, with its images, and nothing else.
pub fn remove(name: &str, force: bool) -> Outcome<u8> {
    let run = run_directory::find(name)?;
    let recognised = run.recognise()?;
    if recognised == Recognised::Foreign {
        return Err(Failure::own(format!(
            "{name}: {} is no run of dcrun's: it has neither run.json nor keeper.pid; nothing was \
             removed",
            run.path.display()
        )));
    }
    let is_there = recognised == Recognised::Run;
    if is_there {
        run.lock(None)?;
    }
    // A damaged record shall not keep a run from being removed.
    let record = run.record();
    let images = found_images::of_run(&run, record.as_ref().ok().and_then(Option::as_ref));
    if !is_there && images.is_empty() {
        return Err(run_directory::no_such_run(name));
    }
    let own = || {
        let is_own = |path: &Path| found_images::belongs(path, &run) == Some(true);
        images.iter().filter(move |path| is_own(path))
    };
    for image in own() {
        if let Some(process) = found_images::user_of(image) {
            return Err(Failure::own(format!(
                "{name}: its image {} is in use by process {process}; end it first, nothing was \
                 removed",
                image.display()
            )));
        }
    }
    let images_bytes: u64 = own()
        .filter(|image| !image.starts_with(&run.path))
        .map(|image| found_images::size_bytes(image))
        .sum();
    let bytes = images_bytes + removal::size_bytes(name);
    if bytes >= MUCH_BYTES && !force {
        confirm(name, bytes)?;
    }
    if let (Err(_), true) = (&record, images.is_empty()) {
        say(&format!(
            "{name}: its record is damaged, so an image that --rio put elsewhere stays where it is"
        ));
    }
    if let Ok(Some(status)) = run.untold() {
        say(&format!(
            "{name}: its program had ended, with status {status}, which nobody was told"
        ));
    }
    found_images::remove(&run, &images)?;
    if is_there {
        run.remove()?;
    }
    Ok(0)
}

/// Asks before much is removed; where nobody can be asked it is not removed.
fn confirm(name: &str, bytes: u64) -> Outcome<()> {
    let mebibytes = bytes >> 20;
    let refused = |why: &str| {
        Err(Failure::own(format!(
            "{name}: it holds {mebibytes} MiB{why}; nothing was removed"
        )))
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return refused(", and there is no terminal to ask at; `dcrun rm --force` removes it");
    }
    eprint!("dcrun: {name}: it holds {mebibytes} MiB; remove it? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        refused(" and was not to be removed")
    }
}
