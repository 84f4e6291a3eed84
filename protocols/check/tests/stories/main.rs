//! The theory's examples as stories: `protocols/testdata/*.txt`.
//!
//! A story is a file of runs. A run is told in a few words above the line `----`; below it stands
//! what came of it: the trace, and what the checker says. The lower part is written by the test if
//! `REWRITE=1` is set, and is to be read, like prose, before it is committed.
//!
//! ```text
//! run cbndvs            the protocol, or `none` if the commits are told too
//! 1 nd coin             process 1 meets a non-deterministic event; so: fixed, visible, fault
//! 1 send 2 heads        a message with a name, to be received by it
//! 2 receive heads
//! 1 commit              under `none`, or because the application wishes so
//! 1 kill                stopped from outside; `crash` is its own fault
//! 1 recover             to its last commit; `recover all` is how a group goes back
//! legal A B C           what a failure-free run shows, to be compared with
//! cascade 3             how far the failure of process 3 would roll the others back
//! ```
//!
//! `nd` may be logged if its call is `read`, as a receive may.

mod teller;

use std::path::{Path, PathBuf};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata")
}

/// The file as it should be.
fn retold(story: &str) -> String {
    let mut told = String::new();
    let mut run: Vec<&str> = Vec::new();
    let mut below = false;
    for line in story.lines() {
        if line == "----" {
            told.push_str("----\n");
            told.push_str(&teller::tell(&run));
            run.clear();
            below = true;
        } else if below {
            below = !line.is_empty();
            if !below {
                told.push('\n');
            }
        } else {
            run.push(line);
            told.push_str(line);
            told.push('\n');
        }
    }
    told
}

#[test]
fn stories_come_out_as_they_are_told() {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(testdata())
        .expect("there are stories")
        .map(|entry| entry.expect("the directory is readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "{paths:?}");
    let mut changed = Vec::new();
    for path in paths {
        let story = std::fs::read_to_string(&path).expect("the story is text");
        let told = retold(&story);
        if told == story {
            continue;
        }
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &told).expect("the story is writable");
        } else {
            let differs = told.lines().zip(story.lines()).position(|(a, b)| a != b);
            let line = differs.unwrap_or(told.lines().count().min(story.lines().count()));
            changed.push(format!(
                "{}:{}: now {:?}",
                path.display(),
                line + 1,
                told.lines().nth(line).unwrap_or("its end"),
            ));
        }
    }
    assert!(
        changed.is_empty(),
        "REWRITE=1 retells these:\n{}",
        changed.join("\n")
    );
}
