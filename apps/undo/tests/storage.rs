//! The three storages: what comes back is what was there, in every respect that a file has.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use undo::storage;

/// A folder in which `kind` works, and what must be unmounted at the end.
struct Ground {
    folder: tempfile::TempDir,
    mount: Option<PathBuf>,
}

impl Ground {
    fn new(kind: &str) -> Option<Ground> {
        let folder = tempfile::tempdir().unwrap();
        let mut ground = Ground {
            folder,
            mount: None,
        };
        if kind == "btrfs" {
            let image = ground.folder.path().join("image");
            let mount = ground.folder.path().join("mount");
            std::fs::File::create(&image)
                .unwrap()
                .set_len(256 << 20)
                .unwrap();
            std::fs::create_dir(&mount).unwrap();
            let run = |c: &mut Command| c.output().is_ok_and(|o| o.status.success());
            let mounted = run(Command::new("mkfs.btrfs").arg("-q").arg(&image))
                && run(Command::new("mount")
                    .args(["-o", "loop"])
                    .arg(&image)
                    .arg(&mount));
            if !mounted {
                return None;
            }
            ground.mount = Some(mount);
        }
        (kind == "copies" || storage::open(kind, &ground.home()).is_ok()).then_some(ground)
    }

    fn home(&self) -> PathBuf {
        self.mount
            .clone()
            .unwrap_or_else(|| self.folder.path().to_owned())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(mount) = &self.mount {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}

/// By name: mode and kind, owner, group, time, links, content.
type Tree = BTreeMap<PathBuf, (u32, u32, u32, i64, u64, Vec<u8>)>;

/// Name, kind, mode, owner, modification time, links, and content or target of all there is.
fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, at: &Path, found: &mut Tree) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if meta.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            // The number of links of a folder differs between file systems.
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(
                name,
                (
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    meta.mtime(),
                    links,
                    content,
                ),
            );
            if meta.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn fill(live: &Path) {
    std::fs::create_dir_all(live.join("a/b")).unwrap();
    std::fs::write(live.join("a/one"), "1").unwrap();
    std::fs::hard_link(live.join("a/one"), live.join("a/b/same")).unwrap();
    std::fs::write(live.join("a/secret"), "s").unwrap();
    std::fs::set_permissions(live.join("a/secret"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("one", live.join("a/link")).unwrap();
    symlink("/nowhere", live.join("dangling")).unwrap();
    std::fs::write(live.join("empty"), "").unwrap();
    std::fs::write(live.join("large"), vec![7; 300_000]).unwrap();
    // Owners can be changed by root only.
    let _ = std::os::unix::fs::chown(live.join("empty"), Some(1234), Some(5678));
}

fn ruin(live: &Path, n: u32) {
    std::fs::remove_dir_all(live.join("a/b")).unwrap();
    std::fs::write(live.join("a/one"), format!("ruined {n}")).unwrap();
    std::fs::rename(live.join("large"), live.join("a/moved")).unwrap();
    std::fs::remove_file(live.join("empty")).unwrap();
    std::fs::create_dir(live.join("empty")).unwrap();
    std::fs::set_permissions(live.join("a"), PermissionsExt::from_mode(0o700)).unwrap();
}

/// What waits to be removed.
fn aside(home: &Path) -> Vec<PathBuf> {
    let folders = ["", "snapshots", "layers"].map(|name| home.join(name));
    let entries = folders.iter().filter_map(|f| std::fs::read_dir(f).ok());
    let paths = entries.flatten().map(|entry| entry.unwrap().path());
    let aside = paths.filter(|p| p.extension().is_some_and(|e| e == "old"));
    aside.filter(|p| !p.ends_with("mine.old")).collect()
}

fn travels(kind: &str) {
    let Some(ground) = Ground::new(kind) else {
        println!("skipped: {kind} cannot be mounted here");
        return;
    };
    let home = ground.home();
    let storage = storage::open(kind, &home).unwrap();
    let live = storage.live().to_owned();
    storage.snapshot("empty").unwrap();
    fill(&live);
    let full = tree(&live);
    storage.snapshot("full").unwrap();
    for n in 0..3 {
        ruin(&live, n);
        let ruined = tree(&live);
        storage.snapshot("ruined").unwrap();
        storage.restore("full").unwrap();
        assert_eq!(tree(&live), full, "back, {kind}");
        storage.restore("ruined").unwrap();
        assert_eq!(tree(&live), ruined, "and forward again, {kind}");
        storage.restore("full").unwrap();
        storage.remove("ruined").unwrap();
    }
    ruin(&live, 9);
    std::fs::write(live.join("kept"), "k").unwrap();
    storage
        .restore_paths("full", &["a".into(), "empty".into(), "never".into()])
        .unwrap();
    let mixed = tree(&live);
    for name in ["a/one", "a/b/same", "a/secret", "empty"] {
        assert_eq!(mixed[Path::new(name)].5, full[Path::new(name)].5, "{name}");
    }
    assert_eq!(mixed[Path::new("kept")].5, b"k");
    storage.restore("empty").unwrap();
    assert!(tree(&live).is_empty());

    assert!(
        storage
            .restore("nothing")
            .unwrap_err()
            .to_string()
            .contains("nothing")
    );
    storage.remove("nothing").unwrap();
    assert_eq!(storage.list().unwrap(), ["empty", "full"]);
    storage.tidy(&|| true).unwrap();
    assert!(!aside(&home).is_empty(), "{kind} was told to stop at once");
    std::fs::create_dir(home.join("mine.old")).unwrap();
    drop(storage);
    let storage = storage::open(kind, &home).unwrap();
    storage.tidy(&|| false).unwrap();
    assert_eq!(aside(&home), Vec::<PathBuf>::new(), "{kind} is tidy");
    assert!(home.join("mine.old").exists(), "what is not ours stays");
    storage.restore("full").unwrap();
    assert_eq!(tree(&live), full, "after another start");
}

#[test]
fn copies_travel() {
    travels("copies");
}

#[test]
fn btrfs_travels() {
    travels("btrfs");
}

#[test]
fn overlay_travels() {
    travels("overlay");
}

/// A folder that a snapshot has gets another name, another folder gets its old one, and both are
/// found in the snapshots after that.
fn renamed_folders_travel(kind: &str) {
    let Some(ground) = Ground::new(kind) else {
        println!("skipped: {kind} cannot be mounted here");
        return;
    };
    let storage = storage::open(kind, &ground.home()).unwrap();
    let live = storage.live().to_owned();
    fill(&live);
    storage.snapshot("old").unwrap();
    let old = tree(&live);
    std::fs::rename(live.join("a"), live.join("new")).unwrap();
    std::fs::rename(live.join("new/b"), live.join("c")).unwrap();
    std::fs::create_dir(live.join("a")).unwrap();
    std::fs::write(live.join("c/more"), "m").unwrap();
    storage.snapshot("renamed").unwrap();
    let renamed = tree(&live);
    std::fs::rename(live.join("new"), live.join("newer")).unwrap();
    storage.snapshot("twice").unwrap();
    let twice = tree(&live);
    for (name, then) in [("old", &old), ("twice", &twice), ("renamed", &renamed)] {
        storage.restore(name).unwrap();
        assert_eq!(tree(&live), *then, "{name}, {kind}");
    }
    storage.restore("old").unwrap();
    storage
        .restore_paths("twice", &["newer".into(), "c".into(), "a".into()])
        .unwrap();
    let mixed = tree(&live);
    for (name, known) in &twice {
        assert_eq!(mixed[name].5, known.5, "{}, {kind}", name.display());
    }
}

#[test]
fn renamed_folders_travel_with_copies() {
    renamed_folders_travel("copies");
}

#[test]
fn renamed_folders_travel_with_btrfs() {
    renamed_folders_travel("btrfs");
}

#[test]
fn renamed_folders_travel_with_overlay() {
    renamed_folders_travel("overlay");
}

#[test]
fn many_snapshots_of_overlay_are_folded_into_one_layer() {
    let Some(ground) = Ground::new("overlay") else {
        return println!("skipped");
    };
    let storage = storage::open("overlay", &ground.home()).unwrap();
    for n in 0..60 {
        std::fs::write(storage.live().join(format!("f{n}")), "x").unwrap();
        if n > 0 {
            std::fs::remove_file(storage.live().join(format!("f{}", n - 1))).unwrap();
        }
        storage.snapshot(&format!("s{n:02}")).unwrap();
    }
    for n in (0..60).rev().step_by(7) {
        storage.restore(&format!("s{n:02}")).unwrap();
        let names: Vec<_> = tree(storage.live()).into_keys().collect();
        assert_eq!(names, [PathBuf::from(format!("f{n}"))]);
    }
}

#[test]
fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let first = storage::open("copies", folder.path()).unwrap();
    let error = storage::open("copies", folder.path()).err().unwrap();
    assert!(
        error.to_string().contains("another undo manager"),
        "{error}"
    );
    drop(first);
    storage::open("copies", folder.path()).unwrap();
}

#[test]
fn an_unknown_kind_is_refused_with_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let error = storage::open("zfs", folder.path())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("btrfs, overlay or copies"), "{error}");
    assert!(storage::open("btrfs", folder.path()).is_err());
}
