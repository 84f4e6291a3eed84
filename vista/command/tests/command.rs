//! The command `vista`: what it says, and its exit status.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vista::{Backend, Disk, Options, Ptr, SegmentOptions, Store, Tmpfs};

fn vista(arguments: &[&str], image: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vista"));
    command.args(arguments).arg(image).output().unwrap()
}

fn image<B: Backend>(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("vista-command-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let options = Options {
        log_len: 1 << 16,
        protect: false,
    };
    let mut store: Store<B> = Store::create(&path, options).unwrap();
    let heap = store
        .add_segment("nodes", SegmentOptions::heap(1 << 20))
        .unwrap();
    store
        .transaction(|tx| {
            let node = tx.alloc(heap, [1_u64; 6])?;
            tx.set_root::<[u64; 6]>(heap, Ptr::from_at(node.at()))
        })
        .unwrap();
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_sound_image_is_described_and_passes() {
    let path = image::<Tmpfs>("sound");
    let output = vista(&["inspect"], &path);
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("nothing to undo"),
        "{said}"
    );
    assert!(
        said.contains("\"nodes\"") && said.contains("heap of 1 blocks, 48 bytes"),
        "{said}"
    );
    let json = text(&vista(&["check", "--json"], &path).stdout);
    assert!(
        json.starts_with('{') && json.contains("\"blocks\":1,\"block_bytes\":48"),
        "{json}"
    );
    let output = vista(&["check"], &path);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn an_image_on_disk_is_seen_as_its_redo_log_leaves_it() {
    let path = image::<Disk>("disk");
    let said = text(&vista(&["inspect"], &path).stdout);
    assert!(
        said.contains("on disk") && said.contains("commits to be carried"),
        "{said}"
    );
    assert!(said.contains("heap of 1 blocks, 48 bytes"), "{said}");
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn damage_is_named_and_fails() {
    let path = image::<Tmpfs>("damaged");
    let file = path.join("0");
    let mut bytes = std::fs::read(&file).unwrap();
    let heap = 8192 + (1 << 16);
    bytes[heap + 7] = 0x55;
    std::fs::write(&file, &bytes).unwrap();
    let output = vista(&["check"], &path);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("heap of segment 1: span 0") && said.contains("copy"),
        "{said}"
    );

    bytes[0] = b'X';
    std::fs::write(&file, &bytes).unwrap();
    let output = vista(&["inspect", "--json"], &path);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no Vista image"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(vista(&["frobnicate"], &path).status.code(), Some(2));
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn message_tables_and_their_buffers_are_shown_and_damage_is_named() {
    use vistagrams::{Grams, Settings};
    let path = image::<Tmpfs>("messages");
    let store: Store<Tmpfs> = Store::open(&path, Options::default()).unwrap();
    let mut settings = Settings::at("127.0.0.1:0".parse().unwrap());
    settings.segment_len = 1 << 20;
    let mut grams = Grams::open(store, settings).unwrap();
    grams
        .transaction(|tx| {
            let peer = tx.peer("127.0.0.1:9".parse().unwrap())?;
            tx.send_request(peer, &[7; 123])
        })
        .unwrap();
    drop(grams);
    let said = text(&vista(&["inspect"], &path).stdout);
    assert!(
        said.contains("requests to 127.0.0.1:9") && said.contains("1 sent, 1 unsettled"),
        "{said}"
    );
    assert!(
        said.contains("request 1: waits for its response, 123 bytes"),
        "{said}"
    );
    let json = text(&vista(&["inspect", "--json"], &path).stdout);
    assert!(
        json.contains("\"messages\":{\"node\":\"") && json.contains("\"len\":123}]}"),
        "{json}"
    );
    assert!(vista(&["check"], &path).status.success());
    // The second segment holds the tables; its first block is their root.
    let file = path.join("2");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(5).position(|word| word == b"GRAMS").unwrap();
    bytes[at] = b'X';
    std::fs::write(&file, &bytes).unwrap();
    let output = vista(&["check"], &path);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("message tables: magic word"), "{said}");
    std::fs::remove_dir_all(path).unwrap();
}
