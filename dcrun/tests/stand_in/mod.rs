//! A stand-in for the runtime, which dies as it is told (`runtime.rs`), and runs of it in a state directory of their own.

// No test uses all of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Compiles the stand-in, once.
fn stand_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let executable = target.join("stand-in-runtime");
        let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
        let compile = |arguments: &[&str], source: &str| {
            let status = Command::new(&rustc)
                .args([
                    "--edition",
                    "2024",
                    "-C",
                    "panic=abort",
                    "-C",
                    "opt-level=1",
                ])
                .args(arguments)
                .arg(sources.join(source))
                .current_dir(target)
                .status()
                .expect("rustc lies beside cargo");
            assert!(status.success(), "compile {source}");
        };
        compile(
            &["--crate-name", "rio_core", "--crate-type", "rlib"],
            "../rio-sim/core/src/lib.rs",
        );
        compile(
            &[
                "--crate-name",
                "dc_image",
                "--crate-type",
                "rlib",
                "--extern",
                "rio_core=librio_core.rlib",
            ],
            "../libdc/image/src/lib.rs",
        );
        let mut arguments = vec!["--extern", "dc_image=libdc_image.rlib", "-L", "."];
        for linking in [
            "link-arg=-nostartfiles",
            "link-arg=-nostdlib",
            "link-arg=-static",
            "link-arg=-no-pie",
            "link-arg=-Wl,--image-base=0x200000000000",
        ] {
            arguments.extend(["-C", linking]);
        }
        arguments.extend(["-o", executable.to_str().unwrap()]);
        compile(&arguments, "tests/stand_in/runtime.rs");
        executable
    })
}

/// A state directory, removed with all images at the end.
pub struct State {
    pub path: PathBuf,
}

impl State {
    pub fn new(test: &str) -> State {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("state-{test}"));
        let _ = fs::remove_dir_all(&path);
        State { path }
    }

    /// `dcrun` with these words; images on disk, so that they go with the test.
    pub fn dcrun(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
        command
            .args(words.split_whitespace())
            .env("DCRUN_STATE", &self.path)
            .env("DCRUN_RUNTIME", stand_in())
            .stdin(Stdio::null());
        command
    }

    /// A run named `r` of a program that exists, with this script.
    pub fn script(&self, options: &str, script: &str) -> Command {
        self.dcrun(&format!("--rio disk --name r {options} /bin/true {script}"))
    }

    pub fn ps(&self) -> Value {
        let listed = self.dcrun("ps --json").output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    pub fn state_of_r(&self) -> String {
        self.ps()[0]["state"].as_str().unwrap_or("none").to_owned()
    }

    pub fn wait_for(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let run = self.ps()[0].clone();
            if condition(&run) {
                return run;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {run}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs it; its exit status and what it said on both streams.
pub fn finish(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        out(&output),
        err(&output),
    )
}

pub fn kill(pid: i64, signal: &str) {
    let killed = Command::new("/bin/kill")
        .args([signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}

pub fn wait_until_stopped(child: &Child) {
    let stat = format!("/proc/{}/stat", child.id());
    let begun = Instant::now();
    while !fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the keeper did not stop"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn sleeping(state: &State) -> (Child, Value) {
    let child = state
        .script("", "commit sleep:20000 exit:4")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let run = state.wait_for("two words", |run| run["commits"] == 2);
    (child, run)
}
