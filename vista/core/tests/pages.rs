//! Page slots in ordinary memory: what is committed is found again, free frames are used in order,
//! and storage that is not needed goes back.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use vista_core::frames::{Balance, FrameSet, Thrift};
use vista_core::pages::{Copied, FrameEntry, Full, PAGE, PageStore, Place, Supply};

const FRAMES: usize = 20_000;

/// Tables from the heap, and a storage that knows which frames it holds.
struct Storage {
    backed: Vec<bool>,
    frames: *mut u8,
    tables: Vec<Vec<u64>>,
    /// Refuses to take anything back.
    keeps: bool,
    /// Frames that it has room for.
    room: usize,
    /// How often it was asked for room, and given some back.
    calls: usize,
    given: usize,
}

impl Storage {
    fn new() -> Storage {
        Storage {
            backed: vec![false; FRAMES],
            frames: std::ptr::null_mut(),
            tables: Vec::new(),
            keeps: false,
            room: FRAMES,
            calls: 0,
            given: 0,
        }
    }

    fn held(&self) -> usize {
        self.backed.iter().filter(|&&backed| backed).count()
    }
}

impl Supply for Storage {
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        self.tables.push(vec![0; bytes.div_ceil(8)]);
        self.tables.last_mut().unwrap().as_mut_ptr().cast()
    }

    fn grow(&mut self, from: usize, most: usize) -> Result<usize, isize> {
        self.calls += 1;
        let new = self.backed[from..from + most].iter().filter(|&&b| !b);
        if self.held() + new.count() > self.room {
            return Err(-28);
        }
        self.backed[from..from + most].fill(true);
        Ok(from + most)
    }

    fn give_back(&mut self, from: usize, len: usize) -> bool {
        if self.keeps {
            return false;
        }
        self.given += 1;
        assert!(self.backed[from..from + len].iter().all(|&b| b));
        self.backed[from..from + len].fill(false);
        // SAFETY: these frames lie in the image below; a hole reads as zeros.
        unsafe { self.frames.add(from * PAGE).write_bytes(0, len * PAGE) };
        true
    }
}

/// An image in memory, and what should be in it.
struct Image {
    table: Vec<[u64; 2]>,
    frames: Vec<u8>,
    words: Box<[AtomicU64; 2]>,
    storage: Storage,
    model: BTreeMap<usize, u8>,
    now_ns: u64,
}

impl Image {
    fn new() -> Image {
        let mut image = Image {
            table: vec![[0; 2]; FRAMES],
            frames: vec![0; FRAMES * PAGE],
            words: Box::new([AtomicU64::new(0), AtomicU64::new(0)]),
            storage: Storage::new(),
            model: BTreeMap::new(),
            now_ns: 1,
        };
        image.storage.frames = image.frames.as_mut_ptr();
        image
    }

    fn open(&mut self) -> PageStore {
        let place = Place {
            table: self.table.as_mut_ptr().cast::<FrameEntry>(),
            frames: self.frames.as_mut_ptr(),
            frame_max: FRAMES,
            published: &raw const self.words[0],
            limit: &raw const self.words[1],
            seed: 5,
        };
        // SAFETY: the image outlives the store, and has room for all frames.
        unsafe { PageStore::open(place, &mut self.storage) }
            .unwrap_or_else(|_| panic!("there is memory"))
    }

    fn stage(&mut self, store: &mut PageStore, page: usize, byte: u8) -> Result<(), Full> {
        store
            .stage(page * PAGE, &mut self.storage, |dst| {
                // SAFETY: a whole frame.
                unsafe { dst.write_bytes(byte, PAGE) };
                Copied::Whole
            })
            .map(|_| ())
    }

    /// Commits the pages of a range, each with its own byte.
    fn commit(&mut self, store: &mut PageStore, pages: std::ops::Range<usize>, byte: u8) {
        for page in pages {
            let byte = byte.wrapping_add(page as u8);
            self.stage(store, page, byte).unwrap();
            self.model.insert(page, byte);
        }
        self.end(store);
    }

    fn end(&mut self, store: &mut PageStore) {
        self.end_after(store, 400_000_000);
    }

    fn end_after(&mut self, store: &mut PageStore, ns: u64) {
        store.publish();
        store.reclaim();
        self.now_ns += ns;
        let now_ns = self.now_ns;
        store.give_back(&mut self.storage, || now_ns);
    }

    fn check(&self, store: &PageStore) {
        let mut seen = BTreeMap::new();
        store.for_each(0, FRAMES * PAGE, |page, bytes| {
            // SAFETY: a committed frame.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, PAGE) };
            assert!(bytes.iter().all(|&b| b == bytes[0]));
            seen.insert(page / PAGE, bytes[0]);
        });
        assert_eq!(seen, self.model);
    }
}

#[test]
fn sets_answer_lowest_and_highest() {
    let mut storage = Storage::new();
    let mut set = FrameSet::new(FRAMES, &mut storage).unwrap();
    assert_eq!(
        (set.lowest(), set.take_run_below(FRAMES, 1, 9)),
        (None, None)
    );
    set.insert_run(100, 200);
    set.insert_run(8190, 10);
    set.insert(19_999);
    assert_eq!(set.len(), 211);
    assert_eq!(set.lowest(), Some(100));
    // Too short to be worth it, it stays; the search goes on below.
    assert_eq!(set.take_run_below(FRAMES, 2, 5), Some((19_999, 0)));
    assert_eq!(set.take_run_below(FRAMES, 1, 5), Some((19_999, 1)));
    assert_eq!(set.take_run_below(19_999, 2, 4), Some((8196, 4)));
    assert_eq!(set.take_run_below(8194, 2, 100), Some((8190, 4)));
    assert_eq!(set.take_run_below(8190, 8, 100), Some((200, 100)));
    assert_eq!(set.take_run_below(100, 1, 100), None);
    assert_eq!(set.len(), 102);
    set.insert(7);
    assert_eq!(set.lowest(), Some(7));
    set.remove(7);
    assert_eq!(set.lowest(), Some(100));
    assert_eq!(set.take_run_below(8190, 8, 1000), Some((100, 100)));
    assert_eq!(set.take_run_below(FRAMES, 1, 9), Some((8194, 2)));
    assert!(set.is_empty() && set.lowest().is_none());
    set.insert(0);
    assert_eq!(set.take_run_below(1, 1, 3), Some((0, 1)));
}

#[test]
fn short_runs_go_back_as_time_pays_for_them() {
    let mut image = Image::new();
    let mut store = image.open();
    image.commit(&mut store, 0..8000, 1);
    let held = image.storage.held();
    // Every third page goes: what is free are single frames, 2666 of them.
    for page in (0..8000).step_by(3) {
        store.drop_range(page * PAGE, (page + 1) * PAGE);
        image.model.remove(&page);
    }
    let end = |image: &mut Image, store: &mut PageStore, ns| {
        let given = image.storage.given;
        image.stage(store, 1, 7).unwrap();
        image.model.insert(1, 7);
        image.end_after(store, ns);
        image.storage.given - given
    };
    // What the large commit needed is forgotten.
    end(&mut image, &mut store, 10_000_000_000);
    // A second of small commits: a call for a millisecond of it or less, and not
    // at each of them.
    let mut calls = Vec::new();
    for _ in 0..1000 {
        calls.push(end(&mut image, &mut store, 1_000_000));
    }
    let all: usize = calls.iter().sum();
    assert!((700..900).contains(&all), "{all} calls");
    assert!(calls.iter().filter(|&&n| n > 0).count() < 60);
    assert!(image.storage.held() >= held - 256 - 900);
    // However long it was: no commit makes many.
    let most = end(&mut image, &mut store, 3_600_000_000_000);
    assert!((200..=256).contains(&most), "{most} calls");
    for _ in 0..20 {
        end(&mut image, &mut store, 1_000_000_000);
    }
    let held = image.storage.held();
    assert!(held < 8000 - 2666 + 600, "{held} after a time");
    // An image opened anew has them back by few calls.
    let mut store = image.open();
    let calls = image.storage.calls;
    image.commit(&mut store, 9000..11_000, 3);
    assert!(
        image.storage.calls - calls < 40,
        "{}",
        image.storage.calls - calls
    );
    image.check(&store);
}

#[test]
fn frames_in_order_make_long_runs() {
    let mut image = Image::new();
    let mut store = image.open();
    for round in 0..9 {
        image.commit(&mut store, 1000..3000, round);
        image.commit(&mut store, 7..8, round);
    }
    let mut runs = 0;
    store.for_each_run(0, FRAMES * PAGE, |_, _, len| {
        runs += 1;
        assert_eq!(len % PAGE, 0);
    });
    assert!(runs < 40, "{runs} runs");
    image.check(&store);
    let store = image.open();
    image.check(&store);
}

#[test]
fn storage_goes_back_and_is_got_again() {
    let mut image = Image::new();
    let mut store = image.open();
    image.commit(&mut store, 0..8000, 1);
    let resting = image.storage.held();
    assert!(resting < 8000 + 400, "{resting}");
    for round in 2..6 {
        image.commit(&mut store, 0..8000, round);
        image.check(&store);
        let held = image.storage.held();
        assert!(held < 8000 + 4096 + 1300, "after all was written: {held}");
    }
    // What was unmapped is not held for long.
    store.drop_range(2000 * PAGE, 8000 * PAGE);
    image.model.retain(|&page, _| page < 2000);
    image.end(&mut store);
    for round in 0..60 {
        image.commit(&mut store, 5..6, round);
    }
    let held = image.storage.held();
    assert!(held < 2000 + 400, "after most was unmapped: {held}");
    image.check(&store);
    // A new opening does not know what has storage, and finds out.
    let mut store = image.open();
    image.check(&store);
    image.commit(&mut store, 0..3000, 9);
    image.check(&store);
}

#[test]
fn storage_that_keeps_all_is_asked_once() {
    let mut image = Image::new();
    image.storage.keeps = true;
    let mut store = image.open();
    for round in 0..5 {
        image.commit(&mut store, 0..4000, round);
    }
    image.check(&store);
    assert!(image.storage.held() >= 8000);
}

#[test]
fn a_full_storage_is_told_and_nothing_is_lost() {
    let mut image = Image::new();
    image.storage.room = 5000;
    let mut store = image.open();
    image.commit(&mut store, 0..3000, 1);
    let error = (0..3000).find_map(|page| image.stage(&mut store, page, 77).err());
    assert_eq!(error, Some(Full(-28)));
    // Nothing of it was published; with room it goes on.
    let store = image.open();
    image.check(&store);
    image.storage.room = FRAMES;
    let mut store = image.open();
    image.commit(&mut store, 0..3000, 2);
    image.check(&store);
}

#[test]
fn large_commits_that_follow_closely_keep_their_frames() {
    let mut thrift = Thrift::new();
    let large = Balance {
        taken: 8000,
        freed: 8000,
        again: 0,
        free: 8000,
        used: 16000,
    };
    let mut now = 1_000_000_000;
    assert!(thrift.surplus(large, || now).frames > 3000);
    for _ in 0..5 {
        now += 2_000_000;
        assert_eq!(thrift.surplus(large, || now).frames, 0);
    }
    let small = Balance {
        taken: 3,
        freed: 3,
        ..large
    };
    now += 1_000_000;
    assert_eq!(thrift.surplus(small, || now).frames, 0);
    // Then a pool stays, and at last nothing.
    now += 200_000_000;
    assert_eq!(thrift.surplus(small, || now).frames, 512);
    let pool = Balance {
        free: 4200,
        ..small
    };
    assert_eq!(thrift.surplus(pool, || now).frames, 0);
    now += 10_000_000_000;
    assert_eq!(thrift.surplus(pool, || now).frames, 512);
}

#[test]
fn what_is_got_again_too_often_is_kept() {
    let mut thrift = Thrift::new();
    let b = Balance {
        taken: 8000,
        freed: 8000,
        again: 7000,
        free: 8000,
        used: 8000,
    };
    let mut now = 1;
    let mut given = 0;
    for _ in 0..100 {
        now += 10_000_000;
        given += usize::from(thrift.surplus(b, || now).frames > 0);
    }
    assert!((10..40).contains(&given), "{given}");
}

#[test]
fn sets_give_out_whole_runs() {
    let mut storage = Storage::new();
    let mut set = FrameSet::new(FRAMES, &mut storage).unwrap();
    assert_eq!(set.take_run(1), None);
    set.insert_run(60, 10);
    set.insert_run(190, 131);
    set.insert_run(8100, 300);
    assert_eq!(set.take_run(132), Some(8100));
    assert_eq!(set.take_run(169), None);
    assert_eq!(set.take_run(131), Some(190));
    assert_eq!(set.take_run(10), Some(60));
    assert_eq!(set.take_run(168), Some(8232));
    assert!(set.is_empty());
}

impl Image {
    /// Lays the pages of a range into a stretch; how many it could.
    fn lay(&mut self, store: &mut PageStore, pages: std::ops::Range<usize>) -> usize {
        let mut stretch = store.reserve(pages.len()).unwrap();
        let mut laid = 0;
        for page in pages {
            let byte = self.model[&page];
            laid += usize::from(
                store.lay(page * PAGE, &mut stretch, &mut self.storage, |dst| {
                    // SAFETY: a whole frame.
                    unsafe { dst.write_bytes(byte, PAGE) };
                    Copied::Whole
                }),
            );
        }
        store.unreserve(stretch);
        laid
    }
}

#[test]
fn scattered_pages_are_laid_together() {
    let mut image = Image::new();
    let mut store = image.open();
    image.commit(&mut store, 0..4000, 1);
    for round in 0..7 {
        for page in (round..4000).step_by(7 + round) {
            image.stage(&mut store, page, 9).unwrap();
            image.model.insert(page, 9);
        }
        image.end(&mut store);
    }
    let runs = |store: &PageStore, from: usize, to: usize| {
        let mut runs = 0;
        store.for_each_run(from * PAGE, to * PAGE, |_, _, _| runs += 1);
        runs
    };
    assert!(runs(&store, 1000, 1500) > 50);
    assert_eq!(image.lay(&mut store, 1000..1500), 500);
    // Nothing is lost if that is never published.
    let again = image.open();
    image.check(&again);
    let mut store = image.open();
    assert_eq!(image.lay(&mut store, 1000..1500), 500);
    // A page that was staged before stays where it is.
    assert_eq!(image.lay(&mut store, 1000..1500), 0);
    image.end(&mut store);
    assert_eq!(runs(&store, 1000, 1500), 1);
    image.check(&store);
    let mut store = image.open();
    image.check(&store);
    assert_eq!(runs(&store, 1000, 1500), 1);
    image.commit(&mut store, 0..4000, 3);
    image.check(&store);
}

#[test]
fn what_cannot_be_laid_stays_where_it_is() {
    let mut image = Image::new();
    image.storage.room = 1200;
    let mut store = image.open();
    image.commit(&mut store, 0..1000, 1);
    let laid = image.lay(&mut store, 0..1000);
    assert!((1..1000).contains(&laid), "{laid}");
    image.end(&mut store);
    image.check(&store);
    let again = image.open();
    image.check(&again);
}

/// A store after commits of many kinds, and the image that it lies in.
fn worn() -> (Image, PageStore) {
    let mut image = Image::new();
    let mut store = image.open();
    image.commit(&mut store, 0..300, 1);
    image.commit(&mut store, 100..200, 2);
    store.drop_range(150 * PAGE, 160 * PAGE);
    (150..160).for_each(|page| {
        image.model.remove(&page);
    });
    image.commit(&mut store, 0..1, 3);
    let mut stretch = store.reserve(20).unwrap();
    for page in 20..40 {
        let byte = image.model[&page];
        let copy = |dst: *mut u8| {
            // SAFETY: a whole frame.
            unsafe { dst.write_bytes(byte, PAGE) };
            Copied::Whole
        };
        assert!(store.lay(page * PAGE, &mut stretch, &mut image.storage, copy));
    }
    store.unreserve(stretch);
    image.end(&mut store);
    (image, store)
}

#[test]
fn the_sum_of_the_table_outlives_the_store() {
    let (mut image, store) = worn();
    assert_eq!(store.damaged(0, FRAMES * PAGE), None);
    let set = store.set();
    let store = image.open();
    assert_eq!(store.set(), set);
    image.check(&store);
    // What is staged and lost leaves no trace.
    let mut store = store;
    for page in 0..10 {
        image.stage(&mut store, page, 9).unwrap();
    }
    assert_ne!(store.set(), set);
    assert_eq!(image.open().set(), set);
}

#[test]
fn pages_that_a_commit_has_dropped_are_taken_out_of_the_sum() {
    let mut image = Image::new();
    let mut store = image.open();
    image.commit(&mut store, 0..50, 1);
    store.drop_range(10 * PAGE, 20 * PAGE);
    let set = store.set();
    store.publish();
    // Killed before they are free: who recovers knows from the state that they are gone.
    let mut store = image.open();
    assert_ne!(store.set(), set);
    store.forget_older(10 * PAGE, 20 * PAGE, 2);
    assert_eq!(store.set(), set);
}

#[test]
fn damage_of_frames_and_of_the_table_is_found() {
    let (mut image, store) = worn();
    let (set, frames) = (store.set(), store.used());
    let good = (image.table.clone(), image.frames.clone());
    // (Entries of frames that are free say nothing.)
    let used: Vec<usize> = (0..FRAMES).filter(|&n| image.table[n][1] != 0).collect();
    assert_eq!(used.len(), frames);
    let found = |image: &mut Image| {
        let store = image.open();
        store.set() != set || store.damaged(0, FRAMES * PAGE).is_some()
    };
    assert!(!found(&mut image));
    for (nth, &n) in used.iter().enumerate() {
        let other = used[(nth + 7) % used.len()];
        for kind in 0..7 {
            match kind {
                0 => image.frames[n * PAGE + nth] ^= 1 << (nth % 8),
                1 => image.frames[n * PAGE..][..PAGE].fill(0),
                2 => image
                    .frames
                    .copy_within(other * PAGE..(other + 1) * PAGE, n * PAGE),
                3 => image.table[n] = [0; 2],
                4 => image.table.swap(n, other),
                5 => image.table[n] = image.table[other],
                _ => image.table[n][nth % 2] ^= 1 << (nth % 64),
            }
            // (Some pages are alike, and one is all zeros.)
            let is_harmless = kind < 3 && image.frames == good.1;
            assert!(is_harmless || found(&mut image), "frame {n}, kind {kind}");
            image.table.clone_from(&good.0);
            image.frames[n * PAGE..][..PAGE].copy_from_slice(&good.1[n * PAGE..][..PAGE]);
        }
    }
}
