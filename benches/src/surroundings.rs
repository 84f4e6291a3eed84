//! The machine a result was taken on, and how busy it was.

use std::fs::read_to_string;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

pub fn describe() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, |cores| cores.get()),
        "memory_mb": memory_kb("MemTotal").map(|kb| kb / 1024),
        "kernel": read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "huge_pages": chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load": load(),
        "taken_unix_s": now.map_or(0, |since| since.as_secs()),
    })
}

/// Memory that a new program could use, in MB.
pub fn available_mb() -> u64 {
    memory_kb("MemAvailable").unwrap_or(0) / 1024
}

/// Programs that wanted a core, on average over the last minute.
fn load() -> f64 {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn memory_kb(key: &str) -> Option<u64> {
    let line = field("/proc/meminfo", key)?;
    line.split_whitespace().next()?.parse().ok()
}

fn field(file: &str, key: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// `always [madvise] never` is `madvise`.
fn chosen(file: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}
