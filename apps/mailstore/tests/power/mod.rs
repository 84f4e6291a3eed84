//! A model of what a disk holds after a power cut.
//!
//! Steps are taken in as the store made them. What is not synced may be there
//! after a power cut, whole or in part, or not: a file's new octets, and each
//! change of a directory by itself, in any combination. That is more than most
//! file systems would do, and what POSIX allows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mailstore::maildir::disk::Step;

type Inode = usize;

enum Node {
    File {
        now: Vec<u8>,
        synced: Vec<u8>,
    },
    Dir {
        now: BTreeMap<String, Inode>,
        synced: BTreeMap<String, Inode>,
    },
}

/// One change of names: all of it happens, or nothing.
type Change = Vec<(Inode, String, Option<Inode>)>;

pub struct Model {
    root_path: PathBuf,
    nodes: Vec<Node>,
    pending: Vec<Change>,
}

const ROOT: Inode = 0;

impl Model {
    /// Everything happens below this directory.
    pub fn new(root_path: &Path) -> Model {
        let root = Node::Dir {
            now: BTreeMap::new(),
            synced: BTreeMap::new(),
        };
        Model {
            root_path: root_path.to_path_buf(),
            nodes: vec![root],
            pending: Vec::new(),
        }
    }

    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Create { path, bytes } => {
                let inode = self.add(Node::File {
                    now: bytes.clone(),
                    synced: Vec::new(),
                });
                self.set(&[(path, Some(inode))]);
            }
            Step::Append { path, bytes } => {
                let inode = self.find(path);
                match &mut self.nodes[inode] {
                    Node::File { now, .. } => now.extend_from_slice(bytes),
                    Node::Dir { .. } => panic!("append to a directory"),
                }
            }
            Step::SyncFile(path) => {
                let inode = self.find(path);
                match &mut self.nodes[inode] {
                    Node::File { now, synced } => synced.clone_from(now),
                    Node::Dir { .. } => panic!("a directory is synced as a file"),
                }
            }
            Step::Rename { from, to } => {
                let inode = self.find(from);
                self.set(&[(from, None), (to, Some(inode))]);
            }
            Step::Link { from, to } => {
                let inode = self.find(from);
                self.set(&[(to, Some(inode))]);
            }
            Step::Unlink(path) | Step::RemoveDir(path) => self.set(&[(path, None)]),
            Step::MakeDir(path) => {
                let inode = self.add(Node::Dir {
                    now: BTreeMap::new(),
                    synced: BTreeMap::new(),
                });
                self.set(&[(path, Some(inode))]);
            }
            Step::SyncDir(path) => {
                let dir = self.find(path);
                let touched = |change: &Change| change.iter().any(|(inode, ..)| *inode == dir);
                let (durable, pending) = std::mem::take(&mut self.pending)
                    .into_iter()
                    .partition(touched);
                self.pending = pending;
                for change in durable {
                    self.make_durable(&change);
                }
            }
        }
    }

    /// Writes into `target` what a power cut could have left. `choose(n)` gives a
    /// number below n.
    pub fn cut(&self, target: &Path, choose: &mut dyn FnMut(usize) -> usize) {
        let mut dirs: BTreeMap<Inode, BTreeMap<String, Inode>> = BTreeMap::new();
        for (inode, node) in self.nodes.iter().enumerate() {
            if let Node::Dir { synced, .. } = node {
                dirs.insert(inode, synced.clone());
            }
        }
        for change in &self.pending {
            if choose(2) == 1 {
                for (dir, name, inode) in change {
                    let entries = dirs.get_mut(dir).unwrap();
                    match inode {
                        Some(inode) => drop(entries.insert(name.clone(), *inode)),
                        None => drop(entries.remove(name)),
                    }
                }
            }
        }
        self.write(ROOT, target, &dirs, choose);
    }

    fn write(
        &self,
        dir: Inode,
        target: &Path,
        dirs: &BTreeMap<Inode, BTreeMap<String, Inode>>,
        choose: &mut dyn FnMut(usize) -> usize,
    ) {
        std::fs::create_dir_all(target).unwrap();
        for (name, inode) in &dirs[&dir] {
            let path = target.join(name);
            match &self.nodes[*inode] {
                Node::Dir { .. } => self.write(*inode, &path, dirs, choose),
                Node::File { now, synced } if now == synced => std::fs::write(path, now).unwrap(),
                Node::File { now, synced } => {
                    let len = match choose(3) {
                        0 => synced.len(),
                        1 => now.len(),
                        _ => choose(now.len() + 1).max(synced.len()),
                    };
                    std::fs::write(path, &now[..len]).unwrap();
                }
            }
        }
    }

    fn add(&mut self, node: Node) -> Inode {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn set(&mut self, names: &[(&PathBuf, Option<Inode>)]) {
        let mut change = Vec::new();
        for (path, inode) in names {
            let dir = self.find(path.parent().unwrap());
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            match &mut self.nodes[dir] {
                Node::Dir { now, .. } => match inode {
                    Some(inode) => drop(now.insert(name.clone(), *inode)),
                    None => drop(now.remove(&name)),
                },
                Node::File { .. } => panic!("{} is in a file", path.display()),
            }
            change.push((dir, name, *inode));
        }
        self.pending.push(change);
    }

    fn make_durable(&mut self, change: &Change) {
        for (dir, name, inode) in change {
            let Node::Dir { synced, .. } = &mut self.nodes[*dir] else {
                panic!("no directory")
            };
            match inode {
                Some(inode) => drop(synced.insert(name.clone(), *inode)),
                None => drop(synced.remove(name)),
            }
        }
    }

    fn find(&self, path: &Path) -> Inode {
        let below = path
            .strip_prefix(&self.root_path)
            .unwrap_or_else(|_| panic!("{path:?} is outside"));
        below.iter().fold(ROOT, |dir, name| match &self.nodes[dir] {
            Node::Dir { now, .. } => *now
                .get(name.to_str().unwrap())
                .unwrap_or_else(|| panic!("{} is not there", path.display())),
            Node::File { .. } => panic!("{} is in a file", path.display()),
        })
    }
}
