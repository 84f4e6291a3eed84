//! `dcrun suspend`: runs come to a stop from which they can go on later, after a restart of the
//! machine too.
//!
//! The keeper does it (see `suspension`); it is asked by a word in the run's image. One that does
//! not answer is ended as by `dcrun kill`, and the run is at its last commit then.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use dc_image::Status;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use crate::machine::shared::SharedLive;
use crate::machine::signals;
use crate::message::{Doing, Failure, OWN_FAULT, Outcome, say};
use crate::record::Record;
use crate::run_directory::{self, RunDirectory};
use crate::{control, image, suspension};

/// A keeper that has not begun by then does not answer.
const ANSWER: Duration = Duration::from_secs(20);
/// One that makes its last commit, or writes it to its storage, may take longer.
const LONGEST: Duration = Duration::from_secs(80);
const PAUSE: Duration = Duration::from_millis(5);

/// What a restart of the machine leaves of a suspended run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Durable,
    InMemory,
}

impl Kept {
    pub fn said(self) -> String {
        match self {
            Kept::Durable => String::new(),
            Kept::InMemory => "; its image is in memory, so a restart of the machine loses it \
                               (--rio disk would keep it)"
                .to_owned(),
        }
    }
}

/// Writes to its storage what a run is resumed from, if it has one.
pub fn keep(file: &File, record: &Record) -> Outcome<Kept> {
    let says = || format!("image {}: write it to its storage", record.image.display());
    let about = fstatfs(file).doing(says)?;
    if about.filesystem_type() == TMPFS_MAGIC {
        return Ok(Kept::InMemory);
    }
    let sync = |path: &Path| File::open(path)?.sync_all();
    file.sync_all().doing(says)?;
    for path in image::beside(&record.image) {
        match sync(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).doing(says);
            }
            _ => {}
        }
    }
    sync(record.image.parent().unwrap_or(Path::new("/"))).doing(says)?;
    Ok(Kept::Durable)
}

/// `dcrun suspend NAME...` and `--all`: every one is tried, all at the same time.
pub fn suspend(names: &[String], all: bool) -> Outcome<u8> {
    let (names, mut failed) = match all {
        true => living()?,
        false => (names.to_vec(), false),
    };
    let mut tell = |failure: Failure| {
        say(&failure.to_string());
        failed = true;
    };
    let mut asked = Vec::new();
    for name in &names {
        match Asked::of(name) {
            Ok(Some(run)) => asked.push(run),
            Ok(None) => say(&format!("{name}: it is suspended already")),
            // (It may have ended since it was listed.)
            Err(_) if all && !is_alive(name) => {}
            Err(failure) => tell(failure),
        }
    }
    for run in asked {
        if let Err(failure) = run.await_stop() {
            tell(failure);
        }
    }
    Ok(if failed { OWN_FAULT } else { 0 })
}

/// Runs that are alive; and whether there are some of which that cannot be told.
fn living() -> Outcome<(Vec<String>, bool)> {
    let (mut names, mut failed) = (Vec::new(), false);
    for run in run_directory::all()? {
        match run.check() {
            Ok(()) if run.alive().is_some() => names.push(run.name),
            Ok(()) => {}
            Err(failure) => {
                say(&failure.to_string());
                failed = true;
            }
        }
    }
    Ok((names, failed))
}

fn is_alive(name: &str) -> bool {
    run_directory::find(name).is_ok_and(|run| run.alive().is_some())
}

/// A run whose keeper was asked.
struct Asked {
    run: RunDirectory,
    record: Record,
    live: SharedLive,
    keeper: i32,
}

impl Asked {
    /// Asks a run's keeper; `None` if it is suspended already.
    fn of(name: &str) -> Outcome<Option<Asked>> {
        let (run, record) = run_directory::existing(name)?;
        let file = image::open(&record.image, &run)?;
        let live = file.as_ref().map(image::live).transpose()?;
        let Some(keeper) = run.alive() else {
            if live.is_some_and(|live| status(&live) == Some(Status::Suspended)) {
                return Ok(None);
            }
            return Err(Failure::own(format!(
                "{name}: this run is not alive; there is nothing to suspend"
            )));
        };
        if run.holder().is_some_and(|holder| holder <= 0) {
            return Err(Failure::own(format!(
                "{name}: its keeper is in another pid namespace, as in a container; suspend it \
                 there"
            )));
        }
        let Some(live) = live else {
            return Err(Failure::own(format!(
                "{name}: its image {} is gone, so it cannot be suspended; let it run to its end, \
                 or end it with `dcrun kill {name}`",
                record.image.display()
            )));
        };
        let asked = Asked {
            run,
            record,
            live,
            keeper,
        };
        asked.ask();
        Ok(Some(asked))
    }

    /// Says it again, too: a keeper that was just starting has forgotten it.
    fn ask(&self) {
        if self.live.keeper_pid.load(Acquire) as i32 != self.keeper {
            return;
        }
        if !suspension::is_wanted(&self.live) {
            suspension::ask(&self.live);
        }
        // Nothing to a process that does not wait for it, but that it goes on if it was stopped.
        signals::send(self.keeper, libc::SIGCONT);
    }

    fn await_stop(mut self) -> Outcome<()> {
        let begun = Instant::now();
        let name = self.run.name.clone();
        while let Some(keeper) = self.run.alive() {
            // (A daemon's run may be given to another keeper meanwhile.)
            self.keeper = keeper;
            self.ask();
            let is_stopping = self.live.run().stopping.load(Relaxed) != 0
                || status(&self.live) == Some(Status::Suspended);
            let patience = if is_stopping { LONGEST } else { ANSWER };
            if begun.elapsed() > patience {
                say(&format!(
                    "{name}: keeper {keeper} does not answer; it is ended as by `dcrun kill`"
                ));
                control::end(&self.run, Some(&self.live))?;
                return self.mark();
            }
            std::thread::sleep(PAUSE);
        }
        match status(&self.live) {
            Some(Status::Suspended) => self.tell(),
            // Its keeper was killed in the middle of it: it is at its last commit all the same.
            Some(Status::Running | Status::Recovering | Status::New) => self.mark(),
            Some(Status::Done) => {
                say(&format!("{name}: its program has ended meanwhile"));
                Ok(())
            }
            _ => Err(Failure::own(format!(
                "{name}: it was stopped meanwhile, by `dcrun kill` or because it could not go on; \
                 `dcrun resume {name}` tries"
            ))),
        }
    }

    /// What its keeper would have noted.
    fn mark(&self) -> Outcome<()> {
        let lock = self.run.lock(None)?;
        let file = image::open(&self.record.image, &self.run)?;
        if let (Some(file), false) = (file, status(&self.live) == Some(Status::Done)) {
            self.live.status.store(Status::Suspended as u32, Release);
            keep(&file, &self.record)?;
        }
        crate::machine::descriptors::close(lock);
        self.tell()
    }

    fn tell(&self) -> Outcome<()> {
        let name = &self.run.name;
        let in_memory = fs::File::open(&self.record.image)
            .ok()
            .and_then(|file| fstatfs(&file).ok())
            .is_some_and(|about| about.filesystem_type() == TMPFS_MAGIC);
        let kept = if in_memory {
            Kept::InMemory
        } else {
            Kept::Durable
        };
        say(&format!(
            "{name}: suspended at commit {}; `dcrun resume {name}` goes on with it{}",
            self.live.published.load(Relaxed),
            kept.said()
        ));
        Ok(())
    }
}

fn status(live: &SharedLive) -> Option<Status> {
    Status::from_u32(live.status.load(Acquire))
}
