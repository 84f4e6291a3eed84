//! Kills a recoverable program at random moments, again and again, and lets it check itself.
//!
//! The program is called as `PROGRAM IMAGE RIO ACKNOWLEDGED`: it recovers the image, fails if what
//! was acknowledged is not there or anything is inconsistent, then goes on for ever and writes the
//! number of commits to stdout as 8 bytes, first what it found, then after each one. With a fourth
//! argument N it stops after N.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// What the kills met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub kills: u64,
    /// Kills before it said anything: in start-up, or in recovery.
    pub early: u64,
    pub commits: u64,
}

/// Kills it so many times; the error is the program's own, or that it stopped by itself.
pub fn torment(
    program: &Path,
    image: &Path,
    rio: &str,
    kills: u64,
    seed: u64,
) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut random = Random(seed | 1);
    let mut acknowledged = 0;
    let command = |acknowledged: u64| {
        let mut command = Command::new(program);
        command.arg(image).arg(rio).arg(acknowledged.to_string());
        command
    };
    for _ in 0..kills {
        let mut running = command(acknowledged);
        running.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = running
            .spawn()
            .map_err(|error| format!("run {}: {error}", program.display()))?;
        let mut stdout = child.stdout.take().expect("piped");
        let mut numbers = Vec::new();
        // Most die in the midst of work, some while they start or recover.
        if random.below(8) > 0 {
            let mut number = [0; 8];
            if stdout.read_exact(&mut number).is_ok() {
                numbers.extend(number);
            }
            sleep(Duration::from_micros(random.below(600)));
        } else {
            sleep(Duration::from_micros(random.below(3000)));
        }
        child.kill().map_err(|error| format!("kill: {error}"))?;
        stdout
            .read_to_end(&mut numbers)
            .map_err(|error| format!("read: {error}"))?;
        let mut complaint = String::new();
        let _ = child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut complaint);
        let status = child.wait().map_err(|error| format!("wait: {error}"))?;
        if status.code().is_some() {
            return Err(format!(
                "after {} kills it stopped, {status}: {complaint}",
                tally.kills
            ));
        }
        match numbers.chunks_exact(8).next_back() {
            Some(last) => acknowledged = u64::from_le_bytes(last.try_into().expect("8 bytes")),
            None => tally.early += 1,
        }
        tally.kills += 1;
    }
    let output = command(acknowledged)
        .arg("0")
        .output()
        .map_err(|error| format!("run: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "the last check failed, {}: {complaint}",
            output.status
        ));
    }
    tally.commits = acknowledged;
    Ok(tally)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
