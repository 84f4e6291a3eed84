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
