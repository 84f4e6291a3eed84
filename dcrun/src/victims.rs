//! The OOM killer's victims, counted by the kernel: a SIGKILL that comes of a
//! lack of memory is the program's own crash, one from outside is not.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// /proc/vmstat, opened once at a high number.
pub struct Victims {
    file: File,
    seen: u64,
}

impl Victims {
    /// Begins to count; `None` if the kernel does not tell.
    pub fn new(file: File) -> Option<Victims> {
        let seen = count(&file)?;
        Some(Victims { file, seen })
    }

    /// Whether the OOM killer killed anything since the last look.
    pub fn grew(&mut self) -> bool {
        let now = count(&self.file).unwrap_or(self.seen);
        std::mem::replace(&mut self.seen, now) != now
    }
}

fn count(file: &File) -> Option<u64> {
    let mut buffer = [0u8; 16384];
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], len as u64) {
            Ok(n) if n > 0 => len += n,
            _ => break,
        }
    }
    let text = std::str::from_utf8(&buffer[..len]).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}
