//! Measurements of Vista alone: group commit, recovery, opening, heap, found pages.

use std::fs;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use vista::{Backend, Disk, Finder, Options, Ptr, SegmentOptions, Store, Tmpfs, WorkingCopy};

use crate::engine::Setup;
use crate::engines::bare::Bare;
use crate::engines::vista::Vista;
use crate::workloads::{Random, Workload};

type Rows = Vec<(String, f64)>;
type Operation = Box<dyn FnMut(&mut Store<Tmpfs>) -> Result<(), vista::Error>>;

/// Debit-credits a second on disk, by the number of committers of one store.
pub fn group_commit(dir: &Path) -> Result<Rows, String> {
    let tables = Workload::DebitCredit.tables();
    let setup = Setup {
        dir,
        tables: &tables,
        durable: true,
    };
    let mut bare = Bare::new(&setup)?;
    let engine = Mutex::new(Vista::<Disk>::new(&setup, false)?);
    let mut best: Rows = Vec::new();
    let mut random = Random(77);
    // Rounds that interleave, of which each number keeps its best.
    let run = Duration::from_millis(200);
    for committers in [0_usize, 1, 2, 4, 8, 16, 32].repeat(6) {
        let (name, rate) = if committers == 0 {
            let (begun, mut count) = (Instant::now(), 0);
            while begun.elapsed() < run {
                Workload::DebitCredit.run(&mut bare, 1, &mut random);
                count += 1;
            }
            let rate = f64::from(count) / begun.elapsed().as_secs_f64();
            ("one pwrite and fdatasync".into(), rate)
        } else {
            let name = format!("{committers} committers");
            (name, committed_together(&engine, committers, run))
        };
        match best.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1 = row.1.max(rate),
            None => best.push((name, rate)),
        }
    }
    Ok(best)
}

fn committed_together(engine: &Mutex<Vista<Disk>>, committers: usize, run: Duration) -> f64 {
    let log = {
        let engine = engine.lock().expect("no panic");
        engine.store().backend().set_deferred(true);
        engine.store().backend().log().expect("a log").clone()
    };
    let barrier = Barrier::new(committers);
    let begun = Instant::now();
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..committers)
            .map(|thread| {
                let (log, barrier) = (&log, &barrier);
                scope.spawn(move || {
                    let mut random = Random(thread as u64 + 1);
                    let mut count = 0;
                    barrier.wait();
                    while begun.elapsed() < run {
                        let number = {
                            let mut engine = engine.lock().expect("no panic");
                            Workload::DebitCredit.run(&mut *engine, 1, &mut random);
                            engine.store().backend().last_commit()
                        };
                        log.wait(number).expect("durable");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    counts.iter().sum::<u64>() as f64 / begun.elapsed().as_secs_f64()
}

/// Milliseconds to open an image, by what a crash left in its undo log.
pub fn recovery(dir: &Path) -> Result<Rows, String> {
    let fault = |error: vista::Error| error.to_string();
    let options = Options {
        log_len: 80 << 20,
        protect: false,
    };
    let (live, crashed) = (dir.join("live"), dir.join("crashed"));
    let mut store: Store<Tmpfs> = Store::create(&live, options).map_err(fault)?;
    let raw = store
        .add_segment("raw", SegmentOptions::raw(64 << 20))
        .map_err(fault)?;
    let mut rows = Vec::new();
    for ranges in [0_usize, 1, 1000, 10_000, 100_000, 700_000] {
        let mut tx = store.begin().map_err(fault)?;
        for index in 0..ranges {
            let at = raw.at((index * 88 % (64 << 20)) & !63);
            *tx.get_mut(Ptr::<[u64; 8]>::from_at(at)).map_err(fault)? = [index as u64; 8];
        }
        let mut best = f64::MAX;
        for _ in 0..3 {
            let _ = fs::remove_dir_all(&crashed);
            copy(&live, &crashed).map_err(|error| error.to_string())?;
            let begun = Instant::now();
            let opened: Store<Tmpfs> = Store::open(&crashed, options).map_err(fault)?;
            best = best.min(begun.elapsed().as_secs_f64() * 1e3);
            drop(opened);
        }
        drop(tx);
        let log_kb = ranges * 88 / 1000;
        rows.push((format!("{ranges} ranges of 64 B, {log_kb} KB of log"), best));
    }
    let _ = fs::remove_dir_all(&crashed);
    Ok(rows)
}

/// Microseconds to open a sound segment, by its size.
pub fn opening(dir: &Path) -> Result<Rows, String> {
    let fault = |error: vista::Error| error.to_string();
    let mut rows = Vec::new();
    for megabytes in [1_usize, 64, 1024, 16 * 1024] {
        let path = dir.join(format!("open-{megabytes}"));
        let mut store: Store<Tmpfs> = Store::create(&path, Options::default()).map_err(fault)?;
        let heap = store
            .add_segment("heap", SegmentOptions::heap(megabytes << 20))
            .map_err(fault)?;
        store
            .transaction(|tx| tx.alloc(heap, 1_u64))
            .map_err(fault)?;
        drop(store);
        let mut best = f64::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            let opened: Store<Tmpfs> = Store::open(&path, Options::default()).map_err(fault)?;
            best = best.min(begun.elapsed().as_secs_f64() * 1e6);
            drop(opened);
        }
        let _ = fs::remove_dir_all(&path);
        rows.push((format!("a heap of {megabytes} MB"), best));
    }
    Ok(rows)
}

/// Nanoseconds for the operations themselves.
pub fn operations(dir: &Path) -> Result<Rows, String> {
    let fault = |error: vista::Error| error.to_string();
    let path = dir.join("operations");
    let mut store: Store<Tmpfs> = Store::create(&path, Options::default()).map_err(fault)?;
    let heap = store
        .add_segment("heap", SegmentOptions::heap(64 << 20))
        .map_err(fault)?;
    let mut rows = Vec::new();
    let count = 200_000_u64;
    let word = store
        .transaction(|tx| tx.alloc(heap, 0_u64))
        .map_err(fault)?;
    let mut time = |name: &str, mut body: Operation| {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            for _ in 0..count {
                body(&mut store).map_err(fault)?;
            }
            best = best.min(begun.elapsed().as_nanos() as f64 / count as f64);
        }
        rows.push((name.to_owned(), best));
        Ok::<(), String>(())
    };
    time(
        "empty transaction",
        Box::new(|store| store.begin()?.commit()),
    )?;
    time(
        "transaction of one word, cached",
        Box::new(move |store| {
            let mut tx = store.begin()?;
            *tx.get_mut(word)? += 1;
            tx.commit()
        }),
    )?;
    time(
        "the same, aborted",
        Box::new(move |store| {
            let mut tx = store.begin()?;
            *tx.get_mut(word)? += 1;
            tx.abort()
        }),
    )?;
    time(
        "malloc and free of 48 B in one transaction",
        Box::new(move |store| {
            let mut tx = store.begin()?;
            let block = tx.alloc(heap, [1_u64; 6])?;
            tx.free(block)?;
            tx.commit()
        }),
    )?;
    let mut held = Vec::new();
    time(
        "malloc and free of 48 B, 1000 held",
        Box::new(move |store| {
            let mut tx = store.begin()?;
            held.push(tx.alloc(heap, [1_u64; 6])?);
            if held.len() > 1000 {
                tx.free(held.swap_remove(held.len() / 2))?;
            }
            tx.commit()
        }),
    )?;
    Ok(rows)
}

/// Nanoseconds a page for programs that declare nothing, by how the pages are found.
pub fn found_pages(dir: &Path) -> Result<Rows, String> {
    let fault = |error: vista::Error| error.to_string();
    let path = dir.join("pages");
    let mut store: Store<Tmpfs> = Store::create(&path, Options::default()).map_err(fault)?;
    let raw = store
        .add_segment("raw", SegmentOptions::raw(16 << 20))
        .map_err(fault)?;
    let mut rows = Vec::new();
    for (finder, name) in [
        (Finder::Userfaultfd, "userfaultfd"),
        (Finder::Signal, "mprotect and SIGSEGV"),
    ] {
        let Ok(mut copy) = WorkingCopy::map(&store, raw, 0, Some(finder)) else {
            continue;
        };
        for pages in [1_usize, 16, 256] {
            let mut best = f64::MAX;
            for round in 0..20 {
                let begun = Instant::now();
                for page in 0..pages {
                    // SAFETY: inside the mapping, which this thread alone uses.
                    unsafe { copy.base().add(page * 3 * 4096).write_volatile(round) }
                }
                copy.commit(&mut store).map_err(fault)?;
                best = best.min(begun.elapsed().as_nanos() as f64 / pages as f64);
            }
            rows.push((format!("{name}, {pages} pages"), best));
        }
    }
    Ok(rows)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

impl<B: Backend> Vista<B> {
    pub fn store(&self) -> &Store<B> {
        &self.store
    }
}
