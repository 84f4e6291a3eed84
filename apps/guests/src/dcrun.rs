//! dcrun as a user knows it: a command line, `ps --json` and `stats --json`.

use crate::error::{Context, Error, Result};
use crate::runner::Options;
use crate::session::Session;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One dcrun binary with one state directory.
#[derive(Clone, Debug)]
pub struct Dcrun {
    binary: PathBuf,
    state: PathBuf,
}

/// One object of `dcrun ps --json`; keys that are not needed here are passed over.
#[derive(Clone, Debug, Deserialize)]
pub struct RunInfo {
    pub name: String,
    pub state: String,
    #[serde(default)]
    pub worker_pid: Option<i32>,
    #[serde(default)]
    pub keeper_pid: Option<i32>,
    #[serde(default)]
    pub commits: u64,
    /// Under a protocol with a log a run gets on without commits.
    #[serde(default)]
    pub logged_events: u64,
    #[serde(default)]
    pub recoveries: u64,
    #[serde(default)]
    pub processes: Vec<ProcessInfo>,
}

/// One process of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct ProcessInfo {
    /// None of one that has ended.
    pub pid: Option<i32>,
}

/// What `dcrun stats NAME --json` may tell about recoveries.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Stats {
    #[serde(default)]
    pub commits: Option<u64>,
    #[serde(default)]
    pub recoveries: Option<u64>,
    #[serde(default)]
    pub logged_events: Option<u64>,
    #[serde(default)]
    pub replayed_events: Option<u64>,
    #[serde(default)]
    pub log_bound_commits: Option<u64>,
    #[serde(default)]
    pub protocol_moves: Option<u64>,
    /// Fractions of a microsecond, and only the last so many.
    #[serde(default)]
    pub recovery_us: Vec<f64>,
}

impl Dcrun {
    pub fn new(binary: &Path, state: PathBuf) -> Self {
        // The program runs in a directory of its own.
        let binary = std::path::absolute(binary).unwrap_or_else(|_| binary.to_owned());
        Dcrun { binary, state }
    }

    /// The command line that runs `command` hosted; the same line resumes it.
    pub fn command_line(
        &self,
        session: &Session,
        fresh: bool,
        options: &Options,
        trace: Option<&Path>,
        command: &[OsString],
    ) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![self.binary.clone().into(), "run".into()];
        if fresh {
            line.push("--fresh".into());
        }
        if let Some(protocol) = &options.protocol {
            line.extend(["--protocol".into(), protocol.into()]);
        }
        if let Some(trace) = trace {
            line.extend(["--trace".into(), trace.into()]);
        }
        if let Some(interval_ms) = options.interval_ms.or(session.interval_ms) {
            line.extend(["--interval".into(), interval_ms.to_string().into()]);
        }
        line.extend(["--name".into(), session.name.into(), "--".into()]);
        line.extend_from_slice(command);
        line
    }

    /// The run of this name, if dcrun knows it.
    pub fn find(&self, name: &str) -> Result<Option<RunInfo>> {
        let text = self.ask(&["ps", "--json"])?;
        let runs: Vec<RunInfo> =
            serde_json::from_str(&text).context(format_args!("read dcrun ps --json: {text:?}"))?;
        Ok(runs.into_iter().find(|run| run.name == name))
    }

    /// Has dcrun forget the run: its image would outlive the state directory.
    pub fn remove(&self, name: &str) {
        let _ = self.ask(&["kill", name]);
        let _ = self.ask(&["rm", name]);
    }

    pub fn stats(&self, name: &str) -> Result<Stats> {
        let text = self.ask(&["stats", name, "--json"])?;
        serde_json::from_str(&text).context(format_args!("read dcrun stats --json: {text:?}"))
    }

    /// What dcrun finds wrong with a trace, if anything.
    pub fn check(&self, trace: &Path) -> Result<Option<String>> {
        let output = Command::new(&self.binary)
            .arg("check")
            .arg(trace)
            .stdin(Stdio::null())
            .output()
            .context(format_args!("run {}", self.binary.display()))?;
        Ok((!output.status.success()).then(|| {
            let said = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&said).trim().to_owned()
        }))
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .args(args)
            .env("DCRUN_STATE", &self.state)
            .env_remove("DCRUN_FAULT")
            .env_remove("DCRUN_PLANT")
            .stdin(Stdio::null())
            .output()
            .context(format_args!("run {}", self.binary.display()))?;
        if !output.status.success() {
            return Err(Error::new(format!(
                "dcrun {}: {}: {}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
