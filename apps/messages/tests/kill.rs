//! The examples killed at random on this machine: nothing is lost or repeated, and their traces
//! uphold the theory; a commit left out is found.

use std::path::{Path, PathBuf};
use std::process::Command;

use messages::trace;
use protocols_check::{Report, Traces};

/// Images go to memory where there is some, or the disk's syncs would be what is tested.
fn place(name: &str) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    base.join(format!("messages-{}-{name}", std::process::id()))
}

fn torment(example: &str, rio: &str, kills: u64, more: &[&str]) -> String {
    let dir = place(&format!("{example}-{rio}{}", more.concat()));
    let _ = std::fs::remove_dir_all(&dir);
    let output = Command::new(env!("CARGO_BIN_EXE_messages"))
        .args(["torment", example])
        .arg(&dir)
        .args([&kills.to_string(), rio, "--trace"])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{example} on {rio}: {said}{complaint}"
    );
    let mut traces = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("trace-")
        {
            traces.push(std::fs::read_to_string(path).unwrap());
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(
        traces.len() >= 2 && said.contains("0 lost, 0 repeated"),
        "{said}"
    );
    trace::merge(&traces)
}

fn judge(trace: &str) -> Report {
    protocols_check::check(Traces::one(trace.as_bytes())).unwrap()
}

fn assert_consistent(example: &str, rio: &str, kills: u64, commits: u64) -> String {
    assert_consistent_over(&[], example, rio, kills, commits)
}

fn assert_consistent_over(
    ways: &[&str],
    example: &str,
    rio: &str,
    kills: u64,
    commits: u64,
) -> String {
    let trace = torment(example, rio, kills, ways);
    let report = judge(&trace);
    assert!(report.is_consistent(), "{example}: {report}");
    assert!(
        report.commits() > commits && trace.contains(" recover "),
        "{report}"
    );
    trace
}

#[test]
fn a_lock_manager_and_its_clients() {
    let trace = assert_consistent("locks", "tmpfs", 60, 100);
    // The same run, had one commit not been made: whichever it is, what left after it shows.
    let commits: Vec<usize> = trace
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains(" commit "))
        .map(|(at, _)| at)
        .collect();
    let mut found = 0;
    let chosen: Vec<usize> = commits
        .iter()
        .copied()
        .step_by(commits.len() / 20 + 1)
        .collect();
    for &at in &chosen {
        let text: String = trace
            .lines()
            .enumerate()
            .map(|(index, line)| match index == at {
                true => line.replace(" commit ", " nd ") + "\n",
                false => line.to_owned() + "\n",
            })
            .collect();
        found += usize::from(!judge(&text).is_consistent());
    }
    // A transaction that only received, just before another commit, may be left out unseen.
    assert!(
        found > chosen.len() / 2,
        "{found} of {} left out were found",
        chosen.len()
    );
}

#[test]
fn two_banks() {
    assert_consistent("bank", "tmpfs", 40, 100);
}

#[test]
fn a_queue_of_jobs() {
    assert_consistent("jobs", "tmpfs", 60, 100);
}

#[test]
fn the_same_on_disk() {
    assert_consistent("locks", "disk", 10, 3);
}

/// The lock server listens for both, and one of its clients comes by IPv4.
#[test]
fn a_lock_manager_over_ipv6_with_a_client_of_ipv4() {
    assert_consistent_over(&["--ipv6"], "locks", "tmpfs", 60, 100);
}

#[test]
fn two_banks_over_ipv6() {
    assert_consistent_over(&["--ipv6"], "bank", "tmpfs", 40, 100);
}

#[test]
fn a_queue_of_jobs_over_ipv6() {
    assert_consistent_over(&["--ipv6"], "jobs", "tmpfs", 60, 100);
}
