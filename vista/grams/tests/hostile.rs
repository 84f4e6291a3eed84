//! Tables that no writer would have written: an error that says what, or a working store; never a
//! panic, a hang, or a byte read outside the segment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vista::{Options, Store, Tmpfs};
use vistagrams::inspect::messages;
use vistagrams::{Grams, Settings};

fn place(name: &str) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    let path = base.join(format!("vistagrams-hostile-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn open(path: &Path) -> Result<Grams<Tmpfs>, vistagrams::Error> {
    let options = Options {
        log_len: 1 << 20,
        protect: false,
    };
    let mut settings = Settings::at("127.0.0.1:0".parse().unwrap());
    settings.segment_len = 1 << 20;
    settings.window = 4;
    Grams::open(Store::open_or_create(path, options)?, settings)
}

/// A store that is client and server: two requests unsettled, one received, one answered.
fn populate(path: &Path) {
    let other = place("other");
    let (mut store, mut peer) = (open(path).unwrap(), open(&other).unwrap());
    let (here, there) = (store.address(), peer.address());
    let send = |grams: &mut Grams<Tmpfs>, to| {
        grams
            .transaction(|tx| {
                let server = tx.peer(to)?;
                tx.send_request(server, &[7; 200])?;
                tx.send_request(server, &[8; 3000])
            })
            .unwrap()
    };
    send(&mut store, there);
    send(&mut peer, here);
    for answers in [false, true] {
        store
            .transaction(|tx| {
                let request = tx
                    .receive_request(Duration::from_secs(20))?
                    .expect("a request");
                match answers {
                    true => tx.send_response(request, &[9; 500]),
                    false => Ok(()),
                }
            })
            .unwrap();
    }
    drop((store, peer));
    std::fs::remove_dir_all(other).unwrap();
}

#[test]
fn damaged_tables_are_refused_or_harmless() {
    let path = place("image");
    populate(&path);
    let file = path.join("1");
    let sound = std::fs::read(&file).unwrap();
    let files: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    // Words of the tables: neither the free room behind them nor the messages, which are of one byte.
    let uniform = |word: &[u8]| word.iter().all(|byte| *byte == word[0]);
    let words: Vec<usize> = (0..sound.len() / 8)
        .filter(|at| !uniform(&sound[8 * at..8 * at + 8]))
        .collect();
    let mut random = 1_u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random >> 20
    };
    let (mut refused, mut opened) = (0, 0);
    for round in 0..800 {
        for (path, bytes) in &files {
            std::fs::write(path, bytes).unwrap();
        }
        let mut bytes = sound.clone();
        let at = 8 * words[next() as usize % words.len()];
        let value = match round % 5 {
            0 => u64::MAX,
            1 => next() % 64,
            2 => next() << 40 | next(),
            3 => u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) ^ (1 << (next() % 64)),
            _ => u64::from_le_bytes(sound[8 * words[0]..][..8].try_into().unwrap()),
        };
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&file, &bytes).unwrap();
        let looked = messages(&path);
        match open(&path) {
            Ok(mut grams) => {
                opened += 1;
                // Whatever it believes, a transaction ends in some way.
                let _ = grams.transaction(|tx| {
                    tx.receive_request(Duration::ZERO)?;
                    let server = tx.peer("127.0.0.1:9".parse().unwrap())?;
                    tx.send_request(server, b"x")
                });
            }
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(
                    text.contains("damaged") || text.contains("version"),
                    "{text}"
                );
                assert!(looked.is_err(), "only one of the two sees it: {text}");
            }
        }
    }
    println!("{refused} refused, {opened} opened");
    assert!(
        refused > 100 && opened > 100,
        "{refused} refused, {opened} opened"
    );
    std::fs::remove_dir_all(path).unwrap();
}
