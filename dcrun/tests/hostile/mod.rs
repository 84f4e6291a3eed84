//! Names and files as nobody should give them.

// No test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// All below a directory: names, kinds, modes and contents.
pub fn tree(top: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let mut bytes = Vec::new();
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if about.is_symlink() {
            bytes = fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes();
        } else if about.is_file() && about.len() < 1 << 20 {
            bytes = fs::read(&path).unwrap();
        }
        found.insert(path, (about.mode(), bytes));
    }
    found
}

/// Whatever means something to a path, a terminal, or a parser, and mixtures of it.
pub fn hostile_names(victim: &Path) -> Vec<String> {
    let victim = victim.to_str().unwrap();
    let mut names: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "./",
        "../",
        "-",
        "--",
        "-x",
        "*",
        "?",
        "~",
        "$HOME",
        "a/b",
        "r/",
        "r/.",
        "./r",
        "r/../r",
        "/r",
        "\\",
        "r\\",
        "r\n",
        "\nr",
        "r\u{1b}[2J",
        "r\u{9b}2J",
        "r\u{7f}",
        "r ",
        " r",
        "r\t",
        "r;id",
        "r&",
        "r|x",
        "`id`",
        "$(id)",
        "'",
        "\"",
        "r\u{202e}",
        "\u{e9}",
        "r\u{0}x",
        "%s%n",
        ".hidden",
        "...",
        "r/run.json",
        "r/image",
    ]
    .map(|name| name.replace('\0', "0/"))
    .to_vec();
    names.push("a".repeat(121));
    names.push("a".repeat(4096));
    names.push("a/".repeat(2000));
    names.push(victim.to_owned());
    names.push(format!("../{}", victim.rsplit('/').next().unwrap()));
    let parts = [
        "..", "/", "r", ".", "\u{1b}", " ", victim, "\n", "-", "x", "*", "\u{9b}",
    ];
    let mut seed = 0x9e37_79b9_u64;
    while names.len() < 300 {
        let mut name = String::new();
        for _ in 0..2 + seed % 5 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            name.push_str(parts[(seed >> 33) as usize % parts.len()]);
        }
        // Some come out as names that may be.
        let may_be = |c: char| c.is_ascii_alphanumeric() || "._+@-".contains(c);
        if name.chars().all(may_be) && !name.starts_with(['.', '-']) {
            continue;
        }
        names.push(name);
    }
    names
}

/// Random ones of a seed.
pub fn numbers(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    }
}

/// Damage as storage and crashes do it; `None` where it means what it did before.
pub fn damaged(whole: &[u8], random: &mut impl FnMut(usize) -> usize) -> Option<Vec<u8>> {
    let mut bytes = whole.to_vec();
    let at = random(bytes.len());
    match random(7) {
        0 | 1 => bytes[at] ^= 1 << random(8),
        2 => bytes.truncate(at),
        3 => bytes[at..].fill(0),
        4 => {
            let len = random(64).min(bytes.len() - at);
            for byte in &mut bytes[at..at + len] {
                *byte = random(256) as u8;
            }
        }
        5 => {
            bytes.drain(at..(at + 1 + random(40)).min(whole.len()));
        }
        _ => {
            let piece = whole[at..(at + 30).min(whole.len())].to_vec();
            let to = random(whole.len());
            bytes.splice(to..to, piece);
        }
    }
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    (value(&bytes) != value(whole)).then_some(bytes)
}
