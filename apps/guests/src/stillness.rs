//! What the processes of a console are doing, for a run that stands still.
//!
//! A session that hangs once in a thousand kills is gone when somebody comes to look. So the report of a step that did not
//! get what it waited for says of every thread where it sleeps and in which system call, as /proc tells it (proc(5):
//! `stat`, `wchan`, `syscall`), and of every process which descriptors it holds.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// One line for each process and descriptor, two for each thread; a file that cannot be read leaves its place empty.
pub fn describe(pids: impl IntoIterator<Item = i32>) -> String {
    let mut text = String::new();
    for pid in pids {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let command = line(&place, "cmdline").replace('\0', " ");
        let _ = write!(text, "\n    process {pid}: {}", command.trim_end());
        for thread in entries(&place.join("task")) {
            let (name, sleep, call) = (
                line(&thread, "comm"),
                line(&thread, "wchan"),
                line(&thread, "syscall"),
            );
            let _ = write!(
                text,
                "\n      thread {} {name}: {} in {sleep}: {call}\n        {}",
                file_name(&thread),
                field(&thread, "State"),
                ["SigPnd", "ShdPnd", "SigBlk"]
                    .map(|name| format!("{name} {}", field(&thread, name)))
                    .join(" ")
            );
        }
        for descriptor in entries(&place.join("fd")) {
            let target = fs::read_link(&descriptor).unwrap_or_default();
            let _ = write!(
                text,
                "\n      {} -> {}",
                file_name(&descriptor),
                target.display()
            );
        }
    }
    text
}

fn line(place: &Path, file: &str) -> String {
    let text = fs::read(place.join(file)).unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// One field of `status`.
fn field(place: &Path, name: &str) -> String {
    let status = line(place, "status");
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The entries of a directory, by number.
fn entries(place: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(place)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    found.sort_by_key(|path| file_name(path).parse::<u64>().unwrap_or(u64::MAX));
    found
}

#[cfg(test)]
mod tests {
    use super::describe;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn a_process_that_sleeps_is_told_with_its_call_and_descriptors() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep runs");
        let until = Instant::now() + Duration::from_secs(10);
        let told = loop {
            let told = describe([child.id() as i32]);
            if told.contains(" in hrtimer_nanosleep: 230 ") || Instant::now() > until {
                break told;
            }
        };
        child.kill().expect("sleep can be killed");
        child.wait().expect("sleep can be waited for");
        for part in ["sleep 1000", "S (sleeping)", ": 230 ", "0 -> /dev/null"] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
}
