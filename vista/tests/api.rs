//! The typed interface on each backend: commits stay, aborts and drops leave nothing.

use std::path::{Path, PathBuf};

use vista::{
    Backend, Disk, Error, Fault, Options, Pmem, Ptr, Segment, SegmentOptions, Store, Tmpfs,
    persistent,
};

persistent! {
    pub struct Account {
        id: u64,
        balance: i64,
        next: Ptr<Account>,
    }
}

/// An image's place, removed with the value.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let path = base.join(format!("vista-api-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options() -> Options {
    Options {
        log_len: 1 << 20,
        protect: false,
    }
}

fn account(id: u64) -> Account {
    Account {
        id,
        balance: 100,
        next: Ptr::NULL,
    }
}

fn fill<B: Backend>(store: &mut Store<B>) -> Result<Segment, Error> {
    let segment = store.segment_or_create("main", SegmentOptions::heap(1 << 20))?;
    store.transaction(|tx| {
        let first = tx.alloc(segment, account(1))?;
        let second = tx.alloc(
            segment,
            Account {
                next: first,
                ..account(2)
            },
        )?;
        tx.set_root(segment, second)
    })?;
    Ok(segment)
}

fn balances<B: Backend>(store: &mut Store<B>, segment: Segment) -> Vec<i64> {
    store
        .transaction(|tx| {
            let mut found = Vec::new();
            let mut at = tx.root::<Account>(segment)?;
            while let Some(account) = at {
                let Account { balance, next, .. } = *tx.get(account)?;
                found.push(balance);
                at = next.non_null();
            }
            Ok(found)
        })
        .unwrap()
}

fn commits_stay_and_aborts_go<B: Backend>(name: &str) {
    let place = Place::new(name);
    let mut store: Store<B> = Store::create(&place.0, options()).unwrap();
    let segment = fill(&mut store).unwrap();
    let blocks = store.blocks(segment).unwrap();

    // Dropped, answered with an error, and aborted: three ways of not happening.
    {
        let mut tx = store.begin().unwrap();
        let root = tx.root::<Account>(segment).unwrap().unwrap();
        tx.get_mut(root).unwrap().balance = 0;
        tx.free(root).unwrap();
        tx.alloc(segment, account(3)).unwrap();
    }
    let failed: Result<(), Error> = store.transaction(|tx| {
        let root = tx.root::<Account>(segment)?.unwrap();
        tx.get_mut(root)?.balance = 1;
        Err(Error::Aborted("on second thought".into()))
    });
    assert_eq!(failed.unwrap_err().to_string(), "on second thought");
    let mut tx = store.begin().unwrap();
    tx.set_root(segment, Ptr::<Account>::NULL).unwrap();
    tx.abort().unwrap();
    assert_eq!(balances(&mut store, segment), [100, 100]);
    assert_eq!(store.blocks(segment).unwrap(), blocks);

    store
        .transaction(|tx| {
            let root = tx.root::<Account>(segment)?.unwrap();
            let next = tx.get(root)?.next;
            tx.get_mut(root)?.balance -= 30;
            tx.get_mut(next)?.balance += 30;
            Ok(())
        })
        .unwrap();
    drop(store);
    let mut store: Store<B> = Store::open(&place.0, options()).unwrap();
    assert_eq!(store.segment("main"), Some(segment));
    assert_eq!(balances(&mut store, segment), [70, 130]);
}

#[test]
fn commits_stay_and_aborts_go_on_tmpfs() {
    commits_stay_and_aborts_go::<Tmpfs>("tmpfs");
}

#[test]
fn commits_stay_and_aborts_go_on_pmem() {
    commits_stay_and_aborts_go::<Pmem>("pmem");
}

#[test]
fn commits_stay_and_aborts_go_on_disk() {
    commits_stay_and_aborts_go::<Disk>("disk");
}

#[test]
fn a_segment_keeps_its_address_and_grows_in_place() {
    let place = Place::new("grow");
    let address = 0x3000_0000_0000;
    let mut store: Store<Tmpfs> = Store::create(&place.0, options()).unwrap();
    let wanted = SegmentOptions {
        max_len: 1 << 20,
        ..SegmentOptions::heap(64 << 10)
    };
    let segment = store.add_segment("fixed", wanted.at(address)).unwrap();
    assert_eq!(store.base(segment).addr(), address);
    let full = store.transaction(|tx| tx.alloc_slice(segment, &[7_u8; 100_000]));
    assert!(matches!(
        full.unwrap_err().fault(),
        Some(Fault::HeapFull { .. })
    ));
    store.grow(segment, 1 << 20).unwrap();
    let ptr = store
        .transaction(|tx| {
            let ptr = tx.alloc_slice(segment, &[7_u8; 100_000])?;
            tx.set_root(segment, ptr)?;
            Ok(ptr)
        })
        .unwrap();
    assert!(matches!(
        store.grow(segment, 2 << 20).unwrap_err().fault(),
        Some(Fault::PastMax { .. })
    ));
    drop(store);

    let mut store: Store<Tmpfs> = Store::open(&place.0, options()).unwrap();
    assert_eq!(store.base(segment).addr(), address);
    let sum = store.transaction(|tx| {
        Ok(tx
            .slice(ptr, 100_000)?
            .iter()
            .map(|&byte| u64::from(byte))
            .sum::<u64>())
    });
    assert_eq!(sum.unwrap(), 700_000);
}

#[test]
fn addresses_in_use_are_refused_with_their_name() {
    let place = Place::new("taken");
    let mut store: Store<Tmpfs> = Store::create(&place.0, options()).unwrap();
    let first = store.add_segment("one", SegmentOptions::raw(4096)).unwrap();
    let base = store.base(first).addr();
    let error = store
        .add_segment("two", SegmentOptions::raw(4096).at(base))
        .unwrap_err();
    assert!(error.to_string().contains(&format!("{base:#x}")), "{error}");
    let error = store
        .add_segment("one", SegmentOptions::raw(4096))
        .unwrap_err();
    assert!(error.to_string().contains("the name is taken"), "{error}");
}

#[test]
fn wild_pointers_and_double_frees_are_errors() {
    let place = Place::new("wild");
    let mut store: Store<Tmpfs> = Store::create(&place.0, options()).unwrap();
    let segment = fill(&mut store).unwrap();
    let mut tx = store.begin().unwrap();
    for wild in [
        Ptr::<u64>::from_at(segment.at((1 << 20) - 4)),
        Ptr::from_at(segment.at(3)),
        Ptr::from_at(vista::At::new(0, 64)),
        Ptr::from_at(vista::At::new(9, 64)),
        Ptr::from_at(vista::At::from_word(u64::MAX)),
        Ptr::NULL,
    ] {
        assert!(matches!(
            tx.get(wild).unwrap_err().fault(),
            Some(Fault::Range { .. })
        ));
        assert!(tx.get_mut(wild).is_err() && tx.free(wild).is_err());
    }
    assert!(
        tx.slice(Ptr::<u64>::from_at(segment.at(0)), usize::MAX)
            .is_err()
    );
    let root = tx.root::<Account>(segment).unwrap().unwrap();
    tx.free(root).unwrap();
    let again = tx.free(root).unwrap_err();
    assert!(
        matches!(again.fault(), Some(Fault::NotAllocated { .. })),
        "{again}"
    );
    assert!(again.to_string().contains("freed before"), "{again}");
}

#[test]
fn a_transaction_longer_than_the_log_is_refused_and_aborts_whole() {
    let place = Place::new("long");
    let small = Options {
        log_len: 4096,
        protect: false,
    };
    let mut store: Store<Tmpfs> = Store::create(&place.0, small).unwrap();
    let segment = store
        .add_segment("raw", SegmentOptions::raw(64 << 10))
        .unwrap();
    let words = Ptr::<u64>::from_at(segment.at(0));
    let result = store.transaction(|tx| {
        tx.set(words, 5)?;
        tx.slice_mut(words, 4096).map(|_| ())
    });
    assert!(matches!(
        result.unwrap_err().fault(),
        Some(Fault::LogFull { .. })
    ));
    assert_eq!(store.transaction(|tx| tx.get(words).copied()).unwrap(), 0);
}

#[test]
fn a_protected_store_faults_outside_transactions() {
    let place = Place::new("protect");
    let protect = Options {
        protect: true,
        ..options()
    };
    let mut store: Store<Tmpfs> = Store::create(&place.0, protect).unwrap();
    let segment = store.add_segment("raw", SegmentOptions::raw(4096)).unwrap();
    let words = Ptr::<u64>::from_at(segment.at(0));
    store.transaction(|tx| tx.set(words, 1)).unwrap();
    let base = store.base(segment).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.starts_with(&format!("{base:x}-")))
        .unwrap();
    assert!(line.contains(" r--s "), "{line}");
    let mut tx = store.begin().unwrap();
    tx.set(words, 2).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.starts_with(&format!("{base:x}-")))
        .unwrap();
    assert!(line.contains(" rw-s "), "{line}");
    drop(tx);
    assert_eq!(store.transaction(|tx| tx.get(words).copied()).unwrap(), 1);
}

#[test]
fn blocks_are_reused_and_nothing_leaks() {
    let place = Place::new("reuse");
    let mut store: Store<Tmpfs> = Store::create(&place.0, options()).unwrap();
    let segment = store
        .add_segment("heap", SegmentOptions::heap(1 << 20))
        .unwrap();
    let mut held = Vec::new();
    for round in 0..20_000_usize {
        let size = [8, 24, 100, 3000, 40_000][round % 5];
        store
            .transaction(|tx| {
                if held.len() >= 16 {
                    tx.free::<u8>(held.remove(0))?;
                }
                held.push(tx.alloc_slice(segment, &vec![1_u8; size])?);
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(store.blocks(segment).unwrap(), held.len());
}

fn what_is_overwritten_stays_and_the_rest_is_undone<B: Backend>(name: &str, can: bool) {
    let place = Place::new(name);
    let mut store: Store<B> = Store::create(&place.0, options()).unwrap();
    let segment = store
        .add_segment("heap", SegmentOptions::heap(1 << 20))
        .unwrap();
    let (block, word) = store
        .transaction(|tx| {
            let block = tx.alloc_slice(segment, &[1_u8; 100])?;
            Ok((block, tx.alloc(segment, 7_u64)?))
        })
        .unwrap();
    let mut tx = store.begin().unwrap();
    tx.set(word, 8).unwrap();
    match tx.overwrite(block, 100).unwrap() {
        Some(mut fresh) => fresh.store(10, &[2; 20]),
        None => assert!(!can),
    }
    assert!(tx.overwrite(block, 1 << 30).is_err() || !can, "outside");
    tx.abort().unwrap();
    let mut bytes = [1; 100];
    if can {
        bytes[10..30].fill(2);
    }
    store
        .transaction(|tx| {
            assert_eq!(*tx.get(word)?, 7);
            assert_eq!(tx.slice(block, 100)?, &bytes);
            tx.free(block)
        })
        .unwrap();
    assert_eq!(store.blocks(segment).unwrap(), 1);
}

#[test]
fn an_overwritten_block_is_not_put_back() {
    what_is_overwritten_stays_and_the_rest_is_undone::<Tmpfs>("overwrite", true);
    what_is_overwritten_stays_and_the_rest_is_undone::<Disk>("overwrite-disk", false);
    what_is_overwritten_stays_and_the_rest_is_undone::<Pmem>("overwrite-pmem", false);
}
