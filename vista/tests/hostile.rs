//! Images that are damaged, foreign, in use, or lies: an error that says what and where, and not
//! one byte changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use vista::inspect::inspect;
use vista::{Backend, Disk, Options, Ptr, SegmentOptions, Store, Tmpfs};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path =
            std::env::temp_dir().join(format!("vista-hostile-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Place(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const OPTIONS: Options = Options {
    log_len: 16 << 10,
    protect: false,
};

/// An image in the midst of a transaction, as a crash leaves it.
fn crashed(name: &str) -> Place {
    let (place, copy) = (Place::new(name), Place::new(&format!("{name}-live")));
    let mut store: Store<Tmpfs> = Store::create(&copy.0, OPTIONS).unwrap();
    let small = |len, heap_at| SegmentOptions {
        len,
        max_len: len,
        address: 0,
        heap_at,
    };
    let heap = store.add_segment("heap", small(256 << 10, 0)).unwrap();
    let raw = store.add_segment("raw", small(8 << 10, 8 << 10)).unwrap();
    let node = store
        .transaction(|tx| {
            let node = tx.alloc(heap, 5_u64)?;
            tx.set_root(heap, node)?;
            Ok(node)
        })
        .unwrap();
    let mut tx = store.begin().unwrap();
    tx.set(Ptr::from_at(raw.at(64)), 77_u64).unwrap();
    tx.set(node, 6).unwrap();
    tx.free(node).unwrap();
    tx.alloc_slice(heap, &[1_u8; 100]).unwrap();
    copy_image(&copy.0, &place.0);
    drop(tx);
    place
}

fn copy_image(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn bytes_of(image: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(image)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Opening must fail, say all of `words`, and leave every byte as it was.
fn refused<B: Backend>(place: &Place, words: &[&str]) {
    let before = bytes_of(&place.0);
    let Err(error) = Store::<B>::open(&place.0, OPTIONS) else {
        panic!("opened: {words:?}")
    };
    let error = error.to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert!(bytes_of(&place.0) == before, "it wrote: {error}");
}

fn edit(file: PathBuf, offset: usize, bytes: &[u8]) {
    let mut content = fs::read(&file).unwrap();
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    fs::write(file, content).unwrap();
}

#[test]
fn the_crashed_image_itself_is_sound_and_recovers() {
    let place = crashed("sound");
    let report = inspect(&place.0).unwrap();
    let text = report.to_string();
    assert!(
        text.contains("would put back 2 ranges (16 bytes), undo 1 mallocs and 1 frees"),
        "{text}"
    );
    assert!(report.json().contains("\"needed\":true"));
    let mut store: Store<Tmpfs> = Store::open(&place.0, OPTIONS).unwrap();
    let heap = store.segment("heap").unwrap();
    let node = store
        .transaction(|tx| Ok(*tx.get(tx.root::<u64>(heap)?.unwrap())?))
        .unwrap();
    assert_eq!((node, store.blocks(heap).unwrap()), (5, 1));
}

#[test]
fn each_kind_of_wrong_image_is_named() {
    let no = |name: &str| crashed(&format!("no-{name}"));
    let place = no("magic");
    edit(place.file("0"), 0, b"ELF");
    refused::<Tmpfs>(&place, &["magic word", "no Vista image"]);

    let place = no("version");
    edit(place.file("0"), 8, &9_u32.to_le_bytes());
    refused::<Tmpfs>(&place, &["version 9", "reads 1"]);

    let place = no("header");
    edit(place.file("0"), 16, &[0xff]);
    refused::<Tmpfs>(&place, &["header: checksum"]);

    let place = no("table");
    edit(place.file("0"), 1024 + 40, &[0xff]);
    refused::<Tmpfs>(&place, &["segment table: checksum"]);

    let place = no("active");
    edit(place.file("0"), 4104, &[7]);
    refused::<Tmpfs>(&place, &["active table", "0x7"]);

    let place = no("tail");
    edit(place.file("0"), 4096, &u64::MAX.to_le_bytes());
    refused::<Tmpfs>(&place, &["undo log: tail"]);

    let place = no("record");
    let tail = u64::from_le_bytes(
        fs::read(place.file("0")).unwrap()[4096..4104]
            .try_into()
            .unwrap(),
    );
    edit(place.file("0"), 8192 + tail as usize - 16, &[0xff; 4]);
    refused::<Tmpfs>(&place, &["undo log: record at", "do not fit"]);

    let place = no("cut");
    fs::OpenOptions::new()
        .write(true)
        .open(place.file("2"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    refused::<Tmpfs>(&place, &["window 2", "the file was cut"]);

    let place = no("cut-0");
    fs::OpenOptions::new()
        .write(true)
        .open(place.file("0"))
        .unwrap()
        .set_len(100)
        .unwrap();
    refused::<Tmpfs>(&place, &["window 0", "the file was cut"]);

    let place = no("gone");
    fs::remove_file(place.file("1")).unwrap();
    refused::<Tmpfs>(&place, &["/1", "No such file"]);

    let place = no("link");
    fs::rename(place.file("1"), place.file("elsewhere")).unwrap();
    symlink(place.file("elsewhere"), place.file("1")).unwrap();
    refused::<Tmpfs>(&place, &["/1", "symbolic links"]);

    let place = Place::new("nothing");
    let error = Store::<Tmpfs>::open(&place.0, OPTIONS)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("No such file") && error.contains("create it"),
        "{error}"
    );
}

#[test]
fn another_owner_is_refused_by_header_and_by_file() {
    let place = crashed("owner");
    // The owner in the header, with a checksum that fits: what copying somebody's image gives.
    let mut header: Vec<u64> = fs::read(place.file("0")).unwrap()[..32]
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    header[1] = 1 | 4242 << 32;
    header[3] = 0;
    let sum = header.iter().fold(header[0], |sum, word| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    });
    edit(place.file("0"), 8, &header[1].to_le_bytes());
    edit(place.file("0"), 24, &sum.to_le_bytes());
    refused::<Tmpfs>(&place, &["uid 4242"]);

    let place = crashed("owner-file");
    if std::os::unix::fs::chown(place.file("1"), Some(4242), None).is_ok() {
        refused::<Tmpfs>(&place, &["/1", "uid 4242"]);
    }
}

#[test]
fn an_image_in_use_is_refused() {
    let place = Place::new("in-use");
    let store: Store<Tmpfs> = Store::create(&place.0, OPTIONS).unwrap();
    refused::<Tmpfs>(&place, &["lock image", "another process"]);
    assert!(inspect(&place.0).is_err());
    assert!(Store::<Tmpfs>::create(&place.0, OPTIONS).is_err());
    drop(store);
    assert!(inspect(&place.0).is_ok());
}

#[test]
fn fuzzed_metadata_never_panics_and_is_never_written_when_refused() {
    let place = crashed("fuzz");
    let pristine = bytes_of(&place.0);
    let meta = &pristine[&place.file("0")];
    let mut random = 7_u64;
    let mut next = move |limit: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let (mut refused, mut refused_in_use, mut sound, mut cases) = (0, 0, 0, 0);
    for round in 0..4000 {
        let mut content = meta.clone();
        for _ in 0..1 + next(3) {
            // Header and table, control page, the log in use, the heap's words, anywhere.
            let offset = match round % 5 {
                0 => next(1024 + 984),
                1 => 4096 + next(256),
                2 => 8192 + next(256),
                3 => 8192 + OPTIONS.log_len + next(2048),
                _ => next(content.len()),
            };
            match next(3) {
                0 => content[offset] ^= 1 << next(8),
                1 => content[offset] = next(256) as u8,
                _ => {
                    let end = (offset + 8).min(content.len());
                    content[offset..end].fill([0, 0xff, 0x7f][next(3)]);
                }
            }
        }
        if next(10) == 0 {
            content.truncate(next(meta.len()));
        }
        for (file, bytes) in &pristine {
            fs::write(file, if file.ends_with("0") { &content } else { bytes }).unwrap();
        }
        cases += 1;
        let path = place.0.clone();
        let opened = catch_unwind(move || use_image(&path)).expect("a panic");
        match opened {
            Ok(()) => sound += 1,
            Err(error) if error.starts_with("used:") => refused_in_use += 1,
            Err(error) => {
                assert!(error.contains(": "), "{error}");
                let now = fs::read(place.file("0")).unwrap();
                assert!(now == content, "it wrote: {error}");
                refused += 1;
            }
        }
    }
    println!(
        "{cases} fuzzed images: {refused} refused unwritten, {refused_in_use} refused in use, \
         {sound} sound where it mattered, 0 panics"
    );
    assert!(
        refused > cases / 4 && sound > cases / 10,
        "{refused} refused, {sound} sound"
    );
}

/// Inspects, opens and uses an image; an error after it was opened is marked as such.
fn use_image(path: &Path) -> Result<(), String> {
    let _ = inspect(path);
    let mut store = Store::<Tmpfs>::open(path, OPTIONS).map_err(|error| error.to_string())?;
    let used = store.segment("heap").map_or(Ok(()), |heap| {
        store.transaction(|tx| {
            if let Some(root) = tx.root::<u64>(heap)? {
                tx.set(root, 1)?;
                tx.free(root)?;
            }
            tx.alloc_slice(heap, &[1_u64; 20])?;
            tx.alloc_slice(heap, &[1_u64; 4000]).map(|_| ())
        })
    });
    used.map_err(|error| format!("used: {error}"))
}

#[test]
fn a_fuzzed_redo_log_never_panics_and_is_never_written_when_refused() {
    let place = Place::new("redo");
    let mut store: Store<Disk> = Store::create(&place.0, OPTIONS).unwrap();
    let raw = store.add_segment("raw", SegmentOptions::raw(8192)).unwrap();
    for round in 0..20_u64 {
        store
            .transaction(|tx| tx.set(Ptr::from_at(raw.at(8 * round as usize)), round))
            .unwrap();
    }
    drop(store);
    let redo = fs::read(place.file("redo")).unwrap();
    let mut random = 11_u64;
    let mut next = move |limit: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let pristine = bytes_of(&place.0);
    let mut refusals = 0;
    for round in 0..150 {
        let mut content = redo[..64 << 10].to_vec();
        let offset = match round % 3 {
            0 => next(64),
            1 => 4096 + next(64),
            _ => 8192 + next(4000),
        };
        content[offset] ^= 1 << next(8);
        for (file, bytes) in &pristine {
            fs::write(
                file,
                if file.ends_with("redo") {
                    &content
                } else {
                    bytes
                },
            )
            .unwrap();
        }
        let before = bytes_of(&place.0);
        let path = place.0.clone();
        let opened = catch_unwind(move || {
            Store::<Disk>::open(&path, OPTIONS)
                .map(|_| ())
                .map_err(|error| error.to_string())
        });
        if let Err(error) = opened.expect("a panic") {
            assert!(bytes_of(&place.0) == before, "it wrote: {error}");
            refusals += 1;
        }
    }
    println!("150 fuzzed redo logs, {refusals} refused");
    assert!(refusals > 0);
}
