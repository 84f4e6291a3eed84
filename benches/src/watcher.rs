//! Looks at a run's counters while it runs, to tell its commits apart.
//!
//! `dcrun stats` has sums only, and the first and the last commit of a program
//! are like no other. The counters lie in the image at offsets that dc-image
//! names, so they are read as a file, a few words at a time: no mapping, and so
//! little work that the run does not feel it.

use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dc_image::header::{LIVE_OFFSET, Live};
use dc_image::window::PAGE;
use serde_json::Value;

use crate::sample::Sample;

/// Not more often, so that watching costs nothing worth mentioning; commits
/// that are closer together are seen as several of the same size.
const PERIOD_LEAST: Duration = Duration::from_millis(1);

pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<f64>>,
}

impl Watcher {
    /// Watches the run whose record will be `record`, committing about every
    /// `interval`.
    pub fn start(record: PathBuf, interval: Duration) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let period = (interval / 4).clamp(PERIOD_LEAST, Duration::from_millis(20));
        let thread = std::thread::spawn(move || watch(&record, period, &stopped));
        Watcher { stop, thread }
    }

    /// KB that each commit wrote to Rio: pages and journal.
    pub fn finish(self) -> Sample {
        self.stop.store(true, Ordering::Relaxed);
        Sample::new(self.thread.join().unwrap_or_default())
    }
}

fn watch(record: &Path, period: Duration, stopped: &AtomicBool) -> Vec<f64> {
    let mut sizes = Vec::new();
    let mut image = None;
    let mut before: Option<Counters> = None;
    while !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(period);
        if image.is_none() {
            image = open(record);
        }
        let Some(now) = image.as_ref().and_then(Counters::read) else {
            continue;
        };
        match before {
            // The first commit has the whole program in it.
            Some(before) if before.commits > 0 && now.commits > before.commits => {
                let commits = now.commits - before.commits;
                let each_kb = (now.bytes - before.bytes) as f64 / commits as f64 / 1024.0;
                sizes.extend(std::iter::repeat_n(each_kb, commits as usize));
            }
            _ => {}
        }
        before = Some(now);
    }
    sizes
}

fn open(record: &Path) -> Option<File> {
    let record: Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
    File::open(record["image"].as_str()?).ok()
}

#[derive(Clone, Copy)]
struct Counters {
    commits: u64,
    /// Ever written to Rio.
    bytes: u64,
}

impl Counters {
    /// `None` if a commit came in between.
    fn read(image: &File) -> Option<Counters> {
        let word = |offset: usize| {
            let mut bytes = [0; 8];
            let at = (LIVE_OFFSET + offset) as u64;
            image.read_exact_at(&mut bytes, at).ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        let commits = word(offset_of!(Live, commits))?;
        let pages = word(offset_of!(Live, pages_copied))?;
        let journal = word(offset_of!(Live, journal_bytes))?;
        let unchanged = word(offset_of!(Live, commits))? == commits;
        unchanged.then_some(Counters {
            commits,
            bytes: pages * PAGE as u64 + journal,
        })
    }
}
