//! A key-value service with its manager in a folder of its own, for one test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyvalue::{Act, Files, KeyValue, Shown, Verb};
use tempfile::TempDir;
use undo::manager::Running;
use undo::{Manager, Outcome, Refused, Settings, storage};

pub struct House {
    pub manager: Running<KeyValue>,
    _folder: Folder,
}

/// Where a house stands: on the disk, or on a btrfs of its own in a file.
pub enum Folder {
    Plain(TempDir),
    Btrfs(TempDir),
}

impl Folder {
    pub fn path(&self) -> PathBuf {
        match self {
            Folder::Plain(folder) => folder.path().to_owned(),
            Folder::Btrfs(folder) => folder.path().join("mount"),
        }
    }

    /// `None` where this user or this machine cannot mount a btrfs.
    pub fn btrfs() -> Option<Folder> {
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        std::fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        std::fs::create_dir(&mount).unwrap();
        let works = run(Command::new("mkfs.btrfs").arg("-q").arg(&image))
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&mount));
        works.then_some(Folder::Btrfs(folder))
    }

    /// A folder in which this kind of storage works; `None` if there can be none here.
    pub fn for_storage(kind: &str) -> Option<Folder> {
        match kind {
            "btrfs" => Self::btrfs(),
            "overlay" => {
                let folder = Folder::Plain(tempfile::tempdir().unwrap());
                storage::open("overlay", &folder.path())
                    .is_ok()
                    .then_some(folder)
            }
            _ => Some(Folder::Plain(tempfile::tempdir().unwrap())),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Folder::Btrfs(folder) = self {
            run(Command::new("umount")
                .arg("-l")
                .arg(folder.path().join("mount")));
        }
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl House {
    pub fn new() -> House {
        House::on(
            "copies",
            Folder::Plain(tempfile::tempdir().unwrap()),
            |_| (),
        )
    }

    pub fn on(kind: &str, folder: Folder, set: impl FnOnce(&mut Settings)) -> House {
        let home = folder.path();
        let manager = open(kind, &home, set);
        House {
            manager,
            _folder: folder,
        }
    }

    pub fn files(&self) -> &Files {
        &self.manager.service().files
    }

    pub fn act(&self, user: &str, key: &str, act: Act) -> Result<Outcome<Shown>, Refused> {
        self.manager
            .submit(Verb::new(user, key, act))
            .map(|(_, outcome, _)| outcome)
    }

    /// Acts, and demands success. Returns what was shown.
    pub fn must(&self, user: &str, key: &str, act: Act) -> Shown {
        let outcome = self.act(user, key, act.clone()).unwrap();
        assert!(outcome.is_done(), "{act:?} of {user} on {key}: {outcome:?}");
        outcome.tag
    }

    pub fn put(&self, user: &str, key: &str, value: &str) {
        self.must(user, key, Act::Put(value.into()));
    }

    pub fn get(&self, user: &str, key: &str) -> Option<String> {
        match self.must(user, key, Act::Get) {
            Shown::Value(value) => value,
            other => panic!("a get has shown {other:?}"),
        }
    }

    pub fn post(&self, user: &str, key: &str, id: u64, window_ms: u64) -> u64 {
        let act = Act::Post {
            id,
            line: format!("line {id}"),
            window_ms,
        };
        self.manager.accept(&Verb::new(user, key, act)).unwrap()
    }

    pub fn last(&self) -> u64 {
        self.manager.timeline().last()
    }

    /// Everything in the live state.
    pub fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        collect(
            self.manager.live_folder(),
            self.manager.live_folder(),
            &mut found,
        );
        found
    }

    pub fn told(&self, user: &str) -> Vec<String> {
        self.files().explanations(user).unwrap()
    }
}

pub fn open(kind: &str, home: &Path, set: impl FnOnce(&mut Settings)) -> Running<KeyValue> {
    let storage = storage::open(kind, home).unwrap();
    let service = KeyValue {
        files: Files::open(storage.live()),
        returned: home.join("returned"),
    };
    let mut settings = Settings {
        home: home.to_owned(),
        retry_every_s: 0.1,
        ..Settings::default()
    };
    set(&mut settings);
    Manager::open(settings, storage, service).unwrap()
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}
