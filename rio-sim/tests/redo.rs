//! The redo log under a machine that stops after any write or sync, keeping any subset of the bytes
//! that were not synced: every acknowledged commit is found, in order, and nothing half.

use std::sync::Arc;

use rio_core::{At, Errno, WINDOWS};
use rio_sim::medium::{Medium, SimDisk, SimFile};
use rio_sim::redo::{Data, RedoLog};

const LOG_LEN: usize = 8192 + 1024;
const DATA_LEN: usize = 256;
const COMMITS: u64 = 24;

/// Commit `number` writes its number all over two places of different length.
fn commit(log: &RedoLog, number: u64) -> Result<(), Errno> {
    let first = [number as u8; 40];
    let second = vec![number as u8; 1 + (number as usize * 37) % 100];
    let ranges = [(At::new(0, 8), &first[..]), (At::new(1, 100), &second[..])];
    let number = log.append(ranges.into_iter())?;
    log.wait(number)
}

fn expected(commits: u64) -> [Vec<u8>; 2] {
    let mut data = [vec![0; DATA_LEN], vec![0; DATA_LEN]];
    for number in 1..=commits {
        data[0][8..48].fill(number as u8);
        data[1][100..101 + (number as usize * 37) % 100].fill(number as u8);
    }
    data
}

struct Machine {
    disk: Arc<SimDisk>,
    log: Arc<SimFile>,
    data: [Arc<SimFile>; 2],
}

impl Machine {
    fn new(operations: u64, log: Vec<u8>, data: [Vec<u8>; 2]) -> Machine {
        let disk = SimDisk::new(operations);
        Machine {
            log: disk.file(log),
            data: data.map(|bytes| disk.file(bytes)),
            disk,
        }
    }

    fn open(&self) -> std::io::Result<RedoLog> {
        let mut data: Data = [const { None }; WINDOWS];
        for (slot, file) in data.iter_mut().zip(&self.data) {
            *slot = Some(Box::new(file.clone()));
        }
        RedoLog::open(Box::new(self.log.clone()), data)
    }

    fn crash(&self, operations: u64, mut survives: impl FnMut() -> bool) -> Machine {
        let log = self.log.after_crash(&mut survives);
        let data = [0, 1].map(|index| self.data[index].after_crash(&mut survives));
        Machine::new(operations, log, data)
    }
}

fn formatted() -> Machine {
    let machine = Machine::new(u64::MAX, vec![0; LOG_LEN], expected(0));
    RedoLog::format(&machine.log as &dyn Medium).unwrap();
    machine
}

/// Which commit the data shows, if it shows one exactly.
fn shown(machine: &Machine, at_least: u64) -> Option<u64> {
    let found = [machine.data[0].live(), machine.data[1].live()];
    (at_least..=COMMITS).find(|&commits| expected(commits) == found)
}

#[test]
fn every_acknowledged_commit_survives_any_subset_of_unsynced_bytes() {
    let mut random = 1_u64;
    let mut coin = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        random >> 40 & 1 != 0
    };
    let (mut cases, mut twice, mut finished) = (0, 0, false);
    for operations in 0.. {
        for sample in 0..12 {
            let start = formatted();
            let machine = start.crash(operations, || true);
            let mut acknowledged = 0;
            if let Ok(log) = machine.open() {
                while acknowledged < COMMITS && commit(&log, acknowledged + 1).is_ok() {
                    acknowledged += 1;
                }
            }
            finished |= machine.disk.left() > 0;
            let mut survives = || match sample {
                0 => false,
                1 => true,
                _ => coin(),
            };
            // The recovery dies as well, a few operations in; then one is left alone.
            let mut after = machine.crash(operations % 5, &mut survives);
            if after.open().is_err() {
                twice += 1;
            }
            after = after.crash(u64::MAX, &mut survives);
            after.open().expect("a log that a crash left is readable");
            let found = shown(&after, acknowledged).unwrap_or_else(|| {
                panic!(
                    "{operations} operations, sample {sample}: {acknowledged} acknowledged, lost"
                )
            });
            assert!(found <= acknowledged + 1, "a commit nobody asked for");

            // Life goes on in a generation of its own: no record of the dead one comes back.
            let next = after.crash(u64::MAX, || true);
            let log = next.open().unwrap();
            if found < COMMITS {
                commit(&log, found + 1).unwrap();
                let last = next.crash(u64::MAX, || false);
                last.open().unwrap();
                assert_eq!(
                    shown(&last, found + 1),
                    Some(found + 1),
                    "a dead record came back"
                );
            }
            cases += 1;
        }
        if finished {
            break;
        }
    }
    println!("{cases} crashes, {twice} of them again in recovery, 0 inconsistent");
    assert!(
        cases > 500 && twice > 50,
        "{cases} cases, {twice} in recovery"
    );
}

#[test]
fn concurrent_committers_share_syncs() {
    let machine = Machine::new(u64::MAX, vec![0; 8192 + (1 << 16)], expected(0));
    RedoLog::format(&machine.log as &dyn Medium).unwrap();
    let log = machine.open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let log = &log;
            scope.spawn(move || {
                for round in 0..50_u8 {
                    let bytes = [round; 8];
                    let number = log.append([(At::new(0, thread * 8), &bytes[..])].into_iter());
                    log.wait(number.unwrap()).unwrap();
                }
            });
        }
    });
    assert!(log.syncs() <= 400);
    log.truncate().unwrap();
    assert_eq!(machine.data[0].live()[..64], [49; 64]);
}

#[test]
fn a_damaged_log_is_refused_and_nothing_is_written() {
    let machine = formatted();
    let log = machine.open().unwrap();
    commit(&log, 1).unwrap();
    let whole = machine.crash(u64::MAX, || true);
    let mut refused = 0;
    for offset in (0..8).chain(4096..4104) {
        let mut bytes = whole.log.live();
        bytes[offset] ^= 0x40;
        let damaged = Machine::new(u64::MAX, bytes, expected(0));
        let before = damaged.disk.left();
        if let Err(error) = damaged.open() {
            assert!(error.to_string().contains("redo log is damaged"), "{error}");
            assert_eq!(damaged.disk.left(), before, "it wrote");
            refused += 1;
        }
    }
    // One header is a spare until the first truncation has filled the other one.
    assert!(refused > 0);

    // Any byte of a commit that others were made after.
    let machine = formatted();
    let log = machine.open().unwrap();
    (1..=3).for_each(|number| commit(&log, number).unwrap());
    let whole = machine.crash(u64::MAX, || true);
    let first_two = 8192..8192 + 2 * (32 + 16 + 40 + 16) + 40 + 80;
    for offset in first_two {
        let mut bytes = whole.log.live();
        bytes[offset] ^= 0x10;
        let damaged = Machine::new(u64::MAX, bytes, expected(0));
        let before = damaged.disk.left();
        let error = damaged
            .open()
            .err()
            .unwrap_or_else(|| panic!("byte {offset} was not missed"));
        assert!(error.to_string().contains("is not whole"), "{error}");
        assert_eq!(damaged.disk.left(), before, "it wrote");
    }

    // A commit for a window that does not exist.
    let machine = formatted();
    let log = machine.open().unwrap();
    let number = log
        .append([(At::new(9, 0), &[1_u8; 8][..])].into_iter())
        .unwrap();
    log.wait(number).unwrap();
    let after = machine.crash(u64::MAX, || true);
    let before = after.disk.left();
    let error = after.open().err().expect("refused");
    assert!(error.to_string().contains("9:0x0"), "{error}");
    assert_eq!(after.disk.left(), before, "it wrote");
}

#[test]
fn a_commit_larger_than_the_log_is_refused_whole() {
    let machine = formatted();
    let log = machine.open().unwrap();
    let bytes = vec![1; LOG_LEN];
    let refused = log.append([(At::new(0, 0), &bytes[..])].into_iter());
    assert_eq!(refused, Err(Errno(27)));
    commit(&log, 1).unwrap();
}
