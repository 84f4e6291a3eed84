//! A folder with a state of its own, in which a run called `t` is started and its worker killed.

// No test uses all of it.
#![allow(dead_code)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("dcrun-place-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    pub fn dcrun(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
        command
            .args(args)
            .current_dir(&self.0)
            .env("DCRUN_STATE", self.0.join("state"));
        command
    }

    /// A fresh run, called `t`, of a program for Python.
    pub fn python(&self, options: &[&str], program: &str) -> Command {
        let head = ["--fresh", "--name", "t"];
        self.dcrun(&[&head, options, &["/usr/bin/python3", "-c", program]].concat())
    }

    /// Begins a Python program that prints `ready` into the file `out`, and waits for that. Its image lies here.
    pub fn begin(&self, program: &str, errors: Stdio) -> Child {
        let rio = format!("tmpfs:{}", self.0.join("image").display());
        let out = fs::File::create(self.0.join("out")).unwrap();
        let mut command = self.python(&["--rio", &rio], program);
        let child = command.stdout(out).stderr(errors).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !self.said().contains("ready") {
            assert!(Instant::now() < end, "the program is not ready");
            sleep(Duration::from_millis(10));
        }
        sleep(Duration::from_millis(200));
        child
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        fs::read_to_string(self.0.join("out")).unwrap_or_default()
    }

    pub fn stats(&self) -> Value {
        let told = self.dcrun(&["stats", "t", "--json"]).output().unwrap();
        serde_json::from_slice(&told.stdout).unwrap()
    }

    /// Whether there was a worker to kill.
    pub fn kill_worker(&self) -> bool {
        self.worker().is_some_and(kills)
    }

    pub fn worker(&self) -> Option<Pid> {
        let listed = self.dcrun(&["ps", "--json"]).output().unwrap().stdout;
        let runs: Value = serde_json::from_slice(&listed).unwrap_or_default();
        let pid = runs[0]["worker_pid"].as_i64()?;
        Some(Pid::from_raw(pid as i32))
    }
}

pub fn kills(worker: Pid) -> bool {
    kill(worker, Signal::SIGKILL).is_ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        // (A test that has failed may have left it alive, in the background.)
        let _ = self.dcrun(&["kill", "t"]).output();
        let _ = self.dcrun(&["rm", "t"]).output();
        let _ = fs::remove_dir_all(&self.0);
    }
}
