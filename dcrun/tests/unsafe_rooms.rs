//! Unsafe code stands in the files that `scripts/unsafe-files` lists, and in no other: a new one is
//! seen by whoever reviews the list. `DCRUN_REWRITE=1 cargo test -p dcrun --test unsafe_rooms`
//! writes the list anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LIST: &str = "scripts/unsafe-files";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Files of Rust below `root` but for what is built, relative to it.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Whether the keyword stands in the code, outside of comments and literals.
fn is_unsafe(code: &str) -> bool {
    let bytes = code.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut at = 0;
    while at < bytes.len() {
        let rest = &code[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += comment(rest);
        } else if rest.starts_with('"') {
            at += string(rest);
        } else if rest.starts_with('\'') {
            at += character(rest);
        } else if is_word(bytes[at]) {
            let len = bytes[at..].iter().take_while(|b| is_word(**b)).count();
            let (word, next) = rest.split_at(len);
            if word == "unsafe" {
                return true;
            }
            at += len;
            if matches!(word, "r" | "br" | "cr") && next.starts_with(['"', '#']) {
                at += raw(next);
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    false
}

/// Length of a comment, which may have others in it.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    // Within a character nothing ends.
    (at..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a literal of a character, or of the mark of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars
                .find(|(_, c)| *c == '\'')
                .map_or(text.len(), |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// Length of a raw string from its marks on; 0 for a raw identifier.
fn raw(text: &str) -> usize {
    let marks = text.bytes().take_while(|b| *b == b'#').count();
    if text.as_bytes().get(marks) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(marks));
    let from = marks + 1;
    text[from..]
        .find(&end)
        .map_or(text.len(), |at| from + at + end.len())
}

#[test]
fn unsafe_code_stands_where_the_list_says() {
    let root = root();
    let found: BTreeSet<String> = sources(&root)
        .into_iter()
        .filter(|path| is_unsafe(&fs::read_to_string(root.join(path)).unwrap()))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    assert!(found.len() > 50, "only {} files are seen", found.len());
    let list = root.join(LIST);
    if std::env::var_os("DCRUN_REWRITE").is_some() {
        let lines: String = found.iter().map(|path| format!("{path}\n")).collect();
        fs::write(&list, lines).unwrap();
    }
    let listed: BTreeSet<String> = fs::read_to_string(&list)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "unsafe code that {LIST} does not list: {new:#?}; listed, and without: {gone:#?}"
    );
}

/// A crate whose root does not deny it could grow unsafe code in any file.
#[test]
fn every_crate_denies_unsafe_code_or_is_listed() {
    let root = root();
    let listed = fs::read_to_string(root.join(LIST)).unwrap();
    for path in sources(&root) {
        let text = path.to_str().unwrap();
        let is_root = text.ends_with("src/lib.rs")
            || text.ends_with("src/main.rs")
            || text.contains("src/bin/");
        if !is_root {
            continue;
        }
        let code = fs::read_to_string(root.join(&path)).unwrap();
        let denies = ["#![deny(unsafe_code)]", "#![forbid(unsafe_code)]"];
        let has = denies
            .iter()
            .any(|denies| code.lines().any(|line| line.trim() == *denies));
        assert!(
            has || listed.lines().any(|line| line == text),
            "{text} denies no unsafe code"
        );
    }
}

#[test]
fn the_keyword_is_told_from_its_mention() {
    for code in [
        "fn main() { unsafe { f() } }",
        "unsafe fn f() {}",
        "#[unsafe(no_mangle)] fn f() {}",
        "let c = '\"'; unsafe {}",
        "let c = '\\''; unsafe {}",
        "let s = r#\"\"\"#; unsafe {}",
        "let s = \"\\\"\"; unsafe {}",
        "fn f<'a>(x: &'a u8) { unsafe {} }",
        "/* /* */ */ unsafe {}",
        "// unsafe\nunsafe {}",
        "let r#unsafe_ = 1; unsafe {}",
    ] {
        assert!(is_unsafe(code), "{code}");
    }
    for code in [
        "",
        "#![deny(unsafe_code)]",
        "// unsafe",
        "/* unsafe /* unsafe */ unsafe */",
        "let s = \"unsafe\";",
        "let s = \"\\\"unsafe\";",
        "let s = r#\"\" unsafe \"#;",
        "let s = br\"unsafe\";",
        "let c = 'x'; // unsafe",
        "let s = c\"unsafe\";",
        "fn not_unsafe() {}",
        "/* \u{e9} unsafe */ // \u{e9} unsafe",
    ] {
        assert!(!is_unsafe(code), "{code}");
    }
}
