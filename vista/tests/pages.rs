//! Programs that declare nothing: written pages are found, committed, or dropped, both ways.

use std::path::PathBuf;

use vista::{Finder, Options, Ptr, Segment, SegmentOptions, Store, Tmpfs, WorkingCopy};

const LEN: usize = 1 << 20;

fn store(name: &str) -> (PathBuf, Store<Tmpfs>, Segment) {
    let path = std::env::temp_dir().join(format!("vista-pages-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let options = Options {
        log_len: 4 << 20,
        protect: false,
    };
    let mut store: Store<Tmpfs> = Store::create(&path, options).unwrap();
    let segment = store
        .add_segment("pages", SegmentOptions::raw(LEN))
        .unwrap();
    (path, store, segment)
}

fn poke(copy: &WorkingCopy, offset: usize, byte: u8) {
    assert!(offset < copy.len());
    // SAFETY: inside the mapping, which only this thread uses.
    unsafe { copy.base().add(offset).write_volatile(byte) }
}

fn committed(store: &mut Store<Tmpfs>, segment: Segment, offset: usize) -> u8 {
    store
        .transaction(|tx| tx.get(Ptr::<u8>::from_at(segment.at(offset))).copied())
        .unwrap()
}

fn finds_exactly_what_was_written(finder: Finder) {
    let (path, mut store, segment) = store(&format!("{finder:?}"));
    let mut copy = match WorkingCopy::map(&store, segment, 0, Some(finder)) {
        Err(error) if finder == Finder::Userfaultfd => {
            println!("skipped, this kernel cannot: {error}");
            return;
        }
        other => other.unwrap(),
    };
    assert_eq!(copy.finder(), Some(finder));
    assert_eq!(copy.commit(&mut store).unwrap(), 0);

    for offset in [0, 4095, 4096 * 7, 4096 * 8 + 5, LEN - 1] {
        poke(&copy, offset, 9);
    }
    assert_eq!(
        committed(&mut store, segment, 4095),
        0,
        "visible before the commit"
    );
    assert_eq!(copy.commit(&mut store).unwrap(), 4);
    assert_eq!(committed(&mut store, segment, LEN - 1), 9);
    assert_eq!(copy.commit(&mut store).unwrap(), 0);

    // Again the same page, and one that an abort takes back.
    poke(&copy, 4096 * 7 + 1, 8);
    assert_eq!(copy.commit(&mut store).unwrap(), 1);
    poke(&copy, 4096 * 7 + 1, 7);
    poke(&copy, 4096 * 50, 7);
    copy.abort().unwrap();
    // SAFETY: inside the mapping.
    let [kept, dropped] =
        [4096 * 7 + 1, 4096 * 50].map(|offset| unsafe { copy.base().add(offset).read_volatile() });
    assert_eq!((kept, dropped), (8, 0));
    assert_eq!(copy.commit(&mut store).unwrap(), 0);

    // Every page, in every second run of pages.
    for page in (0..LEN / 4096).filter(|page| page / 3 % 2 == 0) {
        poke(&copy, page * 4096, 3);
    }
    let wanted = (0..LEN / 4096).filter(|page| page / 3 % 2 == 0).count();
    assert_eq!(copy.commit(&mut store).unwrap(), wanted);
    drop((copy, store));
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn userfaultfd_finds_exactly_what_was_written() {
    finds_exactly_what_was_written(Finder::Userfaultfd);
}

#[test]
fn signals_find_exactly_what_was_written() {
    finds_exactly_what_was_written(Finder::Signal);
}

#[test]
fn a_failed_commit_can_be_tried_again() {
    let (path, mut store, segment) = store("retry");
    let mut copy = WorkingCopy::map(&store, segment, 0, None).unwrap();
    let mut other = {
        let small = Options {
            log_len: 4096,
            protect: false,
        };
        let place = path.with_extension("small");
        let mut other: Store<Tmpfs> = Store::create(&place, small).unwrap();
        other
            .add_segment("pages", SegmentOptions::raw(LEN))
            .unwrap();
        std::fs::remove_dir_all(place).unwrap();
        other
    };
    poke(&copy, 0, 1);
    assert!(
        copy.commit(&mut other)
            .unwrap_err()
            .to_string()
            .contains("undo log")
    );
    assert_eq!(copy.commit(&mut store).unwrap(), 1);
    assert_eq!(committed(&mut store, segment, 0), 1);
    drop((copy, store));
    std::fs::remove_dir_all(path).unwrap();
}
