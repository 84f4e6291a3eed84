//! No script passes over a failed step: each is played with every one of its steps failing in turn.
//!
//! The steps are what a script calls: cargo, installed packages, and what was built. Here they are
//! stand-ins that count, and fail when it is their turn, so that no step needs to be real to fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Scripts and the words they are played with.
const PLAYED: [(&str, &[&str]); 11] = [
    ("bench", &["--quick", "commit", "calls"]),
    ("bench-vista", &["--quick"]),
    ("check-dependencies", &["--advisories"]),
    ("soak", &["3", "bc"]),
    ("soak-files", &["3"]),
    ("soak-protocols", &["3", "bc"]),
    ("soak-vista", &["20"]),
    ("soak-outside", &[]),
    ("test", &[]),
    ("test-ordinary-user", &[]),
    ("theory", &[]),
];

/// Scripts that are not, and why.
const NOT_PLAYED: [(&str, &str); 19] = [
    ("bench-grams", "its steps are servers that it starts itself"),
    ("bench-mail", "its steps are servers that it starts itself"),
    (
        "bench-mail-dcrun",
        "its steps are servers that it starts itself",
    ),
    ("mail-fuzz", "its steps are what it builds itself"),
    ("mailstore-clients", "its steps are the clients of others"),
    (
        "mailstore-dovecot",
        "its steps are servers that it starts itself",
    ),
    ("mailstore-kills", "it kills what it starts"),
    ("package-deb", "it packs real files; `installed` plays it"),
    ("search-grams", "its one step is its last"),
    ("soak-grams", "it kills what it starts"),
    ("soak-images", "it kills what it starts"),
    ("undo-demos", "its steps are servers that it starts itself"),
    (
        "undo-figures",
        "its steps are servers that it starts itself",
    ),
    ("undo-kills", "it kills what it starts"),
    ("undo-storms", "it reads what its steps say"),
    ("demo", "it shows processes that it kills itself"),
    (
        "install-guests",
        "its one step is its last; `test` plays it",
    ),
    ("lines-vista", "it counts lines, and shows them"),
    ("unsafe-files", "it is a list"),
];

/// What the scripts call by their path below target/release.
const BUILT: [&str; 8] = [
    "benches",
    "vista-bench",
    "dcrun",
    "dc-runtime",
    "guests",
    "killer",
    "bank",
    "ordered-map",
];

/// What they call by name, and what stands for it: its words, then the count.
const TOOLS: [(&str, &str); 4] = [
    ("cargo", "step"),
    ("cargo-deny", "step"),
    ("cc", "step"),
    // Everything is installed.
    ("dpkg-query", "printf installed"),
];

struct Stage {
    place: PathBuf,
}

impl Stage {
    fn new() -> Stage {
        let place = PathBuf::from(format!("/tmp/dcrun-scripts-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        let stage = Stage { place };
        fs::create_dir_all(stage.place.join("project/target/release")).unwrap();
        fs::create_dir_all(stage.place.join("tools")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(source)
            .arg(stage.place.join("project"))
            .status()
            .unwrap();
        assert!(copied.success());
        for (name, what) in TOOLS {
            stage.tool(&stage.place.join("tools").join(name), what);
        }
        for name in BUILT {
            stage.tool(
                &stage.place.join("project/target/release").join(name),
                "step",
            );
        }
        stage
    }

    /// `step` counts the calls of all tools, in a file that every user may write,
    /// and fails at the one that is to fail.
    fn tool(&self, path: &Path, what: &str) {
        let count = self.place.join("count");
        let text = format!(
            "#!/bin/sh\nstep() {{\n    n=$(($(cat {count}) + 1))\n    echo $n > {count}\n    \
             [ $n != \"$FAIL_AT\" ] || {{ echo planted >&2; exit 1; }}\n}}\n{what}\n",
            count = count.display()
        );
        fs::write(path, text).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Plays a script with its step number `fail_at` failing, 0 for none; how many there were.
    fn play(&self, script: &str, words: &[&str], fail_at: u32) -> (Output, u32) {
        let count = self.place.join("count");
        fs::write(&count, "0\n").unwrap();
        fs::set_permissions(&count, PermissionsExt::from_mode(0o666)).unwrap();
        let tools = self.place.join("tools");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
        let output = Command::new(self.place.join("project/scripts").join(script))
            .args(words)
            .env("PATH", path)
            .env("FAIL_AT", fail_at.to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let counted = fs::read_to_string(&count).unwrap().trim().parse().unwrap();
        (output, counted)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

#[test]
fn a_failed_step_fails_the_script() {
    let stage = Stage::new();
    for (script, words) in PLAYED {
        let (output, steps) = stage.play(script, words, 0);
        assert!(output.status.success(), "{script}: {output:?}");
        assert!(steps > 0, "{script}: no step is seen");
        for step in 1..=steps {
            let (output, _) = stage.play(script, words, step);
            assert!(
                !output.status.success(),
                "{script} passes over its step {step} of {steps}: {output:?}"
            );
        }
    }
}

#[test]
fn every_script_is_played_or_says_why_not() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    for entry in fs::read_dir(source).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = PLAYED.iter().any(|(played, _)| *played == name)
            || NOT_PLAYED.iter().any(|(not, _)| *not == name);
        assert!(known, "scripts/{name}");
    }
}
