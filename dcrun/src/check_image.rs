//! Whether an image is what the last commit left: read before a cold recovery, and by
//! `dcrun check-image`.
//!
//! Everything that a recovery would use is read: the seals, the frame tables, every frame
//! that counts, what processes share, the journal. Nothing is mapped, so a file that is cut
//! off is an error and no signal; and no worker runs before all of it was found whole.
//!
//! A recovery maps frames that follow one another, and reads them when they are touched. To
//! look at them only then would mean to find out in the middle of the program. They are read
//! here, by all processors at once: 1 GB in memory takes some 0.1 s, on a disk what the disk
//! takes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use dc_image::Status;
use dc_image::header::{FRAME_MAX, FRAMES_OFFSET, JOURNAL_LEN, JOURNAL_OFFSET, TABLE_OFFSET};
use dc_image::run::{CONTENTS_LEN, CONTENTS_OFFSET, Life, RUN_OFFSET, processes_sum, shared_sum};
use dc_image::seal::{self, OF_RUN};
use dc_image::state_head::StateHead;
use dc_image::window::{PAGE, STATE_BASE};
use vista_core::journal;
use vista_core::pages::sum::{self, Frame};
use vista_core::pages::{Entry, Sums};

use crate::machine::process;
use crate::machine::shared::SharedLive;
use crate::message::{Doing, Failure, Outcome};
use crate::run_directory;
use crate::{image, record::Record};

/// What was found whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    pub commit: u64,
    pub processes: usize,
    pub pages: usize,
    pub journal_bytes: usize,
}

/// `dcrun check-image NAME`.
pub fn check(name: &str) -> Outcome<u8> {
    let (run, record) = run_directory::existing(name)?;
    run.lock(None)?;
    let Some(file) = image::open(&record.image, &run)? else {
        return Err(Failure::own(format!(
            "{name}: its image {} is gone; `dcrun rm {name}` removes the rest",
            record.image.display()
        )));
    };
    let live = image::live(&file)?;
    let whole = examine(&record, &file, &live)?;
    println!(
        "{name}: its image is whole: commit {}, {} pages of {} process{}, {} bytes of journal",
        whole.commit,
        whole.pages,
        whole.processes,
        if whole.processes == 1 { "" } else { "es" },
        whole.journal_bytes
    );
    Ok(0)
}

/// Reads all of a run's image; the failure says what is damaged and what to do.
pub fn examine(record: &Record, file: &File, live: &SharedLive) -> Outcome<Whole> {
    let id = image::id(file).doing(|| format!("image {}: read it", record.image.display()))?;
    let images = Images {
        path: &record.image,
        id,
        live,
        durable: record.rio.kind != crate::cli::RioKind::Tmpfs,
    };
    let known = record.image_id == 0 || record.image_id == id;
    let found = match known {
        true => images.examine(file),
        false => Err("it is not the one that this run was given, but another's".to_owned()),
    };
    found.map_err(|what| {
        Failure::own(format!(
            "image {}: it is damaged: {what}; put a whole copy of it back and `dcrun resume {}`, \
             or start over with --fresh",
            record.image.display(),
            record.name
        ))
    })
}

struct Images<'a> {
    path: &'a Path,
    id: u64,
    live: &'a SharedLive,
    durable: bool,
}

/// `Err` says what is damaged.
type Found<T> = Result<T, String>;

impl Images<'_> {
    fn examine(&self, file: &File) -> Found<Whole> {
        let live = self.live;
        let published = live.published.load(Acquire);
        let committed = live.run().committed.load(Relaxed);
        if published < committed {
            return Err(format!(
                "it names commit {published}, and had commit {committed} before"
            ));
        }
        let newest = self.newest();
        if published < newest {
            return Err(format!(
                "it is an older copy, of commit {published}; the run had made commit {newest}"
            ));
        }
        if live.status.load(Acquire) == Status::Done as u32 && !live.end_is_sealed(self.id) {
            return Err("what it says of the program's end".into());
        }
        if published == 0 {
            return Ok(Whole::default());
        }
        self.check_run(published)?;
        let mut whole = Whole {
            commit: published,
            ..Whole::default()
        };
        self.check_contents(file, published)?;
        whole.journal_bytes = self.check_journal(file, published)?;
        for (slot, p) in live.processes().iter().enumerate() {
            if p.life_at(published) != Life::Lives {
                continue;
            }
            let own = match slot {
                0 => None,
                _ => Some(self.open_own(slot)?),
            };
            let name = format!("process {}", p.id.load(Relaxed));
            let pages = self
                .check_process(slot, own.as_ref().unwrap_or(file), published)
                .map_err(|what| format!("{name}: {what}"))?;
            whole.pages += pages;
            whole.processes += 1;
        }
        Ok(whole)
    }

    /// The newest commit by the file beside the image; 0 if there is none.
    fn newest(&self) -> u64 {
        let mut number = [0u8; 8];
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(image::newest(self.path));
        match file.and_then(|file| file.read_exact_at(&mut number, 0)) {
            Ok(()) => u64::from_ne_bytes(number),
            Err(_) => 0,
        }
    }

    /// The seal of the commit, and what it says of the tables.
    fn check_run(&self, published: u64) -> Found<()> {
        let run = self.live.run();
        let sums = [
            processes_sum(self.live.processes().iter(), published),
            shared_sum(self.live.shared().iter(), published),
        ];
        let key = seal::key(self.id, OF_RUN);
        match run.seals.at(key, published) {
            Ok(Some((seq, words))) if seq == published => match words == sums {
                true => {}
                false if words[0] != sums[0] => {
                    return Err(format!(
                        "its table of processes is not that of commit {published}"
                    ));
                }
                false => {
                    return Err(format!(
                        "what its processes share is not that of commit {published}"
                    ));
                }
            },
            _ => {
                return Err(format!(
                    "it has no seal of commit {published}, which it names"
                ));
            }
        }
        let by = run.in_flight.load(Relaxed) as usize;
        let live = self.live;
        match live.input.is_sound(by) && live.output.is_sound(by) {
            true => Ok(()),
            false => Err("what it notes of the call that was under way".into()),
        }
    }

    /// The image of a process that is not the first.
    fn open_own(&self, slot: usize) -> Found<File> {
        let mut path = self.path.as_os_str().to_owned();
        path.push(format!(".{slot}"));
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| format!("{}: open it: {error}", Path::new(&path).display()))?;
        let is_own = file
            .metadata()
            .is_ok_and(|about| about.is_file() && about.uid() == process::uid());
        match is_own {
            true => Ok(file),
            false => Err(format!("{}: it is not ours", Path::new(&path).display())),
        }
    }

    /// What lies in pipes and sockets.
    fn check_contents(&self, file: &File, published: u64) -> Found<()> {
        let mut bytes = vec![0; CONTENTS_LEN];
        for (at, shared) in self.live.shared().iter().enumerate() {
            let Some(place) = shared.place_at(published) else {
                continue;
            };
            let sum = shared.contents[place].load(Relaxed);
            if sum == 0 {
                continue;
            }
            let len = shared.value[place].load(Relaxed) as u32 as usize;
            let from = RUN_OFFSET + CONTENTS_OFFSET + (at * 2 + place) * CONTENTS_LEN;
            let inside = bytes
                .get_mut(..len)
                .ok_or("a pipe holds more than it can")?;
            read(file, inside, from)?;
            if seal::contents_sum(inside) != sum {
                return Err(format!("what lies in the pipe of entry {at}"));
            }
        }
        Ok(())
    }

    fn check_journal(&self, file: &File, published: u64) -> Found<usize> {
        let of_interval = |word: u64| match word >> 32 == (published + 1) & 0xffff_ffff {
            true => (word as u32 as usize).min(JOURNAL_LEN),
            false => 0,
        };
        let live = self.live;
        let tail = of_interval(live.journal.load(Relaxed));
        let may_lose = self.durable && live.boot_sum.load(Relaxed) != boot_sum();
        let needed = match may_lose {
            true => of_interval(live.journal_durable.load(Relaxed)),
            false => tail,
        };
        let mut bytes = vec![0; tail];
        read(file, &mut bytes, JOURNAL_OFFSET)?;
        let (end, _) = journal::whole(&bytes, published);
        match end >= needed.min(tail) {
            true => Ok(end),
            false => Err(format!("its journal, at byte {end} of {needed}")),
        }
    }

    /// The frames of a process, and their table. Says how many count.
    fn check_process(&self, slot: usize, file: &File, published: u64) -> Found<usize> {
        let p = &self.live.processes()[slot];
        let key = seal::key(self.id, slot as u64 + 1);
        let Ok(Some((_, [set, sealed_limit]))) = p.seals.at(key, published) else {
            return Err(format!("it has no seal of commit {published}"));
        };
        let limit = p.frame_limit.load(Relaxed);
        if limit > FRAME_MAX as u64 || limit < sealed_limit {
            return Err(format!(
                "it says that it has {limit} frames, which cannot be (they were {sealed_limit})"
            ));
        }
        let mut current = current(&table(file, limit as usize)?, published);
        let sums = Sums::new(key);
        forget_discarded(file, &sums, &mut current)?;
        let sum = |sum: u64, used: &Used| sum.wrapping_add(sum::of_words(used.words));
        if current.iter().fold(0, sum) != set {
            return Err(format!("its frame table is not that of commit {published}"));
        }
        current.sort_unstable_by_key(|used| used.frame);
        check_frames(file, &sums, &current)?;
        Ok(current.len())
    }
}

/// A frame that counts.
#[derive(Clone, Copy)]
struct Used {
    frame: usize,
    words: [u64; 2],
}

fn read(file: &File, bytes: &mut [u8], at: usize) -> Found<()> {
    file.read_exact_at(bytes, at as u64)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("it is cut off before byte {}", at + bytes.len())
            }
            _ => format!("read it at byte {at}: {error}"),
        })
}

fn table(file: &File, limit: usize) -> Found<Vec<[u64; 2]>> {
    const AT_ONCE: usize = 1 << 16;
    let mut table = Vec::new();
    let mut bytes = vec![0; AT_ONCE * 16];
    for from in (0..limit).step_by(AT_ONCE) {
        let bytes = &mut bytes[..AT_ONCE.min(limit - from) * 16];
        read(file, bytes, TABLE_OFFSET + from * 16)?;
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        table.extend(
            bytes
                .chunks_exact(16)
                .map(|entry| [word(&entry[..8]), word(&entry[8..])]),
        );
    }
    Ok(table)
}

/// Of every page the newest frame that is committed, by pages.
fn current(table: &[[u64; 2]], published: u64) -> Vec<Used> {
    let mut used: Vec<Used> = (table.iter().enumerate())
        .map(|(frame, &words)| Used { frame, words })
        .filter(|used| (1..=published).contains(&Entry::of(used.words).seq))
        .collect();
    let order = |used: &Used| {
        let entry = Entry::of(used.words);
        (entry.page, std::cmp::Reverse(entry.seq), used.frame)
    };
    used.sort_unstable_by_key(order);
    used.dedup_by_key(|used| Entry::of(used.words).page);
    used
}

/// A commit that drops pages is published before their frames are free.
fn forget_discarded(file: &File, sums: &Sums, current: &mut Vec<Used>) -> Found<()> {
    let Ok(at) = current.binary_search_by_key(&STATE_BASE, |used| Entry::of(used.words).page)
    else {
        return Ok(());
    };
    let mut first = vec![Frame([0; PAGE])];
    let used = current[at];
    read_frames(file, &mut first, used.frame)?;
    check_frame(sums, &first[0], used)?;
    for discard in StateHead::of_page(&first[0].0).discards() {
        current.retain(|used| {
            let entry = Entry::of(used.words);
            let within = (discard.from..discard.to).contains(&(entry.page as u64));
            !within || entry.seq >= discard.seq
        });
    }
    Ok(())
}

fn read_frames(file: &File, frames: &mut [Frame], from: usize) -> Found<()> {
    read(file, Frame::bytes_of(frames), FRAMES_OFFSET + from * PAGE)
}

fn check_frame(sums: &Sums, frame: &Frame, used: Used) -> Found<()> {
    let Entry { page, seq, .. } = Entry::of(used.words);
    match sums.entry(sums.content(frame), page, seq) == used.words {
        true => Ok(()),
        false => Err(format!(
            "frame {}, which is to hold page {page:#x} as of commit {seq}",
            used.frame
        )),
    }
}

/// Reads all frames that count, by as many threads as there are processors.
fn check_frames(file: &File, sums: &Sums, used: &[Used]) -> Found<()> {
    /// So few are not worth a thread.
    const FEW: usize = 4096;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let each = used.len().div_ceil(processors.min(8)).max(FEW);
    if used.len() <= each {
        return check_part(file, sums, used);
    }
    let trouble = Mutex::new(Ok(()));
    std::thread::scope(|scope| {
        for part in used.chunks(each) {
            scope.spawn(|| {
                let found = check_part(file, sums, part);
                if found.is_err() {
                    *trouble.lock().unwrap_or_else(|e| e.into_inner()) = found;
                }
            });
        }
    });
    trouble.into_inner().unwrap_or_else(|e| e.into_inner())
}

/// Frames in ascending order: what lies near is read at once.
fn check_part(file: &File, sums: &Sums, used: &[Used]) -> Found<()> {
    const AT_ONCE: usize = 128;
    let mut frames = vec![Frame([0; PAGE]); AT_ONCE];
    let mut rest = used;
    while let Some(first) = rest.first() {
        let near = rest.partition_point(|used| used.frame < first.frame + AT_ONCE);
        let (group, behind) = rest.split_at(near);
        let len = group[near - 1].frame + 1 - first.frame;
        read_frames(file, &mut frames[..len], first.frame)?;
        for used in group {
            check_frame(sums, &frames[used.frame - first.frame], *used)?;
        }
        rest = behind;
    }
    Ok(())
}

/// As the runtime notes it when a worker begins.
fn boot_sum() -> u64 {
    let mut id = [0u8; 40];
    let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let len = text.len().min(id.len());
    id[..len].copy_from_slice(&text[..len]);
    dc_image::header::checksum(&id)
}
