//! The systems by name, and the process that runs one of them.
//!
//! Each system has a process of its own, which loads its database and then runs a batch whenever
//! the driver asks; so the rounds of all systems interleave, and what one does to the machine meets
//! all.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::time::Instant;

use vista::{Disk, Pmem, Tmpfs};

use crate::engine::{Engine, Setup};
use crate::engines::bare::Bare;
use crate::engines::floor::Floor;
use crate::engines::lmdb::Lmdb;
use crate::engines::pmemobj::Pmemobj;
use crate::engines::redb::Redb;
use crate::engines::rocksdb::Rocksdb;
use crate::engines::sqlite::Sqlite;
use crate::engines::vista::{Protected, Vista};
use crate::workloads::{Random, Workload};

/// A system in a certain setting.
pub struct Peer {
    pub name: &'static str,
    /// What a table says about it.
    pub about: &'static str,
    pub environment: &'static [(&'static str, &'static str)],
}

const NO_FLUSH: &[(&str, &str)] = &[("PMEM_IS_PMEM_FORCE", "1"), ("PMEM_NO_FLUSH", "1")];
const NO_FLUSH_MOVNT: &[(&str, &str)] = &[
    ("PMEM_IS_PMEM_FORCE", "1"),
    ("PMEM_NO_FLUSH", "1"),
    ("PMEM_NO_MOVNT", "1"),
];
const FLUSH: &[(&str, &str)] = &[("PMEM_IS_PMEM_FORCE", "1")];

const fn peer(name: &'static str, about: &'static str) -> Peer {
    Peer {
        name,
        about,
        environment: &[],
    }
}

pub static MEMORY: &[Peer] = &[
    peer("bare", "bare stores: not atomic, not durable"),
    peer("floor", "an undo log by hand"),
    peer("vista", "Vista on tmpfs"),
    peer("vista-pmem", "Vista with clwb and fences"),
    peer(
        "vista-protected",
        "Vista, mapping write-protected between transactions",
    ),
    Peer {
        name: "pmemobj",
        about: "libpmemobj, no flushes, non-temporal stores",
        environment: NO_FLUSH,
    },
    Peer {
        name: "pmemobj-cached",
        about: "libpmemobj, no flushes, no non-temporal stores",
        environment: NO_FLUSH_MOVNT,
    },
    Peer {
        name: "pmemobj-flush",
        about: "libpmemobj with flushes",
        environment: FLUSH,
    },
    peer("lmdb", "LMDB, WRITEMAP, NOSYNC"),
    peer("redb", "redb, Durability::None"),
    peer("rocksdb", "RocksDB, WAL, no sync"),
    peer("sqlite", "SQLite, WAL, synchronous off"),
];

pub static DISK: &[Peer] = &[
    peer("bare", "one pwrite and fdatasync of the changed bytes"),
    peer("vista-disk", "Vista with its redo log"),
    peer("lmdb", "LMDB, synced"),
    peer("redb", "redb, Durability::Immediate"),
    peer("rocksdb", "RocksDB, WAL synced"),
    peer("sqlite", "SQLite, WAL, synchronous full"),
];

/// The process of one system: loads, says "ready", then runs batches of the sizes it reads.
pub fn serve(name: &str, workload: Workload, dir: &Path, durable: bool) -> Result<(), String> {
    let tables = workload.tables();
    let setup = Setup {
        dir,
        tables: &tables,
        durable,
    };
    match name {
        "bare" => batches(Bare::new(&setup)?, workload),
        "floor" => batches(Floor::new(&setup)?, workload),
        "vista" => batches(Vista::<Tmpfs>::new(&setup, false)?, workload),
        "vista-pmem" => batches(Vista::<Pmem>::new(&setup, false)?, workload),
        "vista-disk" => batches(Vista::<Disk>::new(&setup, false)?, workload),
        "vista-protected" => batches(Protected(Vista::<Tmpfs>::new(&setup, true)?), workload),
        "pmemobj" | "pmemobj-cached" | "pmemobj-flush" => batches(Pmemobj::new(&setup)?, workload),
        "lmdb" => batches(Lmdb::new(&setup)?, workload),
        "redb" => batches(Redb::new(&setup)?, workload),
        "rocksdb" => batches(Rocksdb::new(&setup)?, workload),
        "sqlite" => batches(Sqlite::new(&setup)?, workload),
        _ => Err(format!("{name}: no such system")),
    }
}

fn batches<E: Engine>(mut engine: E, workload: Workload) -> Result<(), String> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let count = line.parse().map_err(|_| format!("not a number: {line}"))?;
        let begun = Instant::now();
        workload.run(&mut engine, count, &mut random);
        println!("{}", begun.elapsed().as_nanos());
        stdout().flush().map_err(|error| error.to_string())?;
    }
    Ok(())
}
