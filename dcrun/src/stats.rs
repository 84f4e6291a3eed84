//! The counters of a run, for people and for scripts.

use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use dc_image::Status;
use dc_image::run::{Life, Process};
use dc_image::window::PAGE;
use protocols::Protocol;
use serde_json::{Value, json};

use crate::image;
use crate::machine::shared::SharedLive;
use crate::message::{Failure, Outcome, json_text};
use crate::ps::{self, state_of};
use crate::record::Record;
use crate::run_directory;

/// `dcrun stats NAME`.
pub fn show(name: &str, as_json: bool) -> Outcome<u8> {
    let (run, record) = run_directory::existing(name)?;
    let alive = run.alive().is_some();
    let counted = match run.done()? {
        Some(counted) => counted,
        None => {
            let file = image::open(&record.image, &run)?.ok_or_else(|| {
                Failure::own(format!(
                    "{name}: its image {} is gone, and its counters with it",
                    record.image.display()
                ))
            })?;
            let live = image::live(&file)?;
            let mut counted = counters(&record, &live);
            let status = Status::from_u32(live.status.load(Relaxed));
            counted["state"] = state_of(alive, false, status).name().into();
            counted
        }
    };
    let text = if as_json {
        json_text(&counted)
    } else {
        table(&counted) + &table_of_processes(&counted["processes"])
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// One counter a line; the unit is taken from the end of its name.
fn table(counted: &Value) -> String {
    const UNITS: [(&str, &str); 3] = [("_us", "us"), ("_bytes", "bytes"), ("_ms", "ms")];
    let rows: Vec<Vec<String>> = counted
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "processes")
        .map(|(key, value)| {
            let (key, unit) = UNITS
                .iter()
                .find_map(|(suffix, unit)| Some((key.strip_suffix(suffix)?, *unit)))
                .unwrap_or((key.as_str(), ""));
            vec![
                key.replace('_', " "),
                format!("{} {unit}", for_people(value)),
            ]
        })
        .collect();
    ps::align(&rows)
}

/// One process a line, if there are several.
fn table_of_processes(processes: &Value) -> String {
    const KEYS: [&str; 7] = [
        "pid",
        "calls",
        "commits",
        "read_bytes",
        "written_bytes",
        "frames_used",
        "command",
    ];
    let all = processes.as_array().map_or(&[][..], Vec::as_slice);
    if all.len() < 2 {
        return String::new();
    }
    let head = KEYS.map(|key| key.replace('_', " ").to_uppercase());
    let mut rows = vec![head.to_vec()];
    rows.extend(
        all.iter()
            .map(|process| KEYS.map(|key| for_people(&process[key])).to_vec()),
    );
    format!("\n{}", ps::align(&rows))
}

fn for_people(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(for_people).collect::<Vec<_>>().join(" "),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => whole.to_string(),
            None => format!("{:.1}", number.as_f64().unwrap_or(f64::NAN)),
        },
        other => other.to_string(),
    }
}

/// Everything that is counted about a run, with the unit in each name.
pub fn counters(record: &Record, live: &SharedLive) -> Value {
    let commits = live.commits.load(Relaxed);
    let recoveries = live.recoveries.load(Relaxed);
    let commit_ns = live.commit_ns.load(Relaxed);
    let ring = live.recovery_ns.len() as u64;
    // The runtime writes a time at the number of its recovery, from 1 on; it
    // stays 0 where a kill came before the end.
    let recovery_us: Vec<f64> = (recoveries.saturating_sub(ring) + 1..=recoveries)
        .map(|nth| live.recovery_ns[(nth % ring) as usize].load(Relaxed))
        .filter(|&time_ns| time_ns != 0)
        .map(|time_ns| time_ns as f64 / 1000.0)
        .collect();
    let (image_bytes, image_len_bytes) = image::size(&record.image).unwrap_or((0, 0));
    let in_force = Protocol::from_u8(live.protocol_now.load(Relaxed) as u8);
    let mean_us =
        |total_ns: u64, count: u64| (count > 0).then(|| total_ns as f64 / count as f64 / 1000.0);
    let mut all = json!({
        "name": record.name,
        "protocol": record.protocol.name(),
        "protocol_now": in_force.map(Protocol::name),
        "protocol_moves": live.protocol_moves.load(Relaxed),
        "protocol_reason": reason(live),
        "cost_commit_us": cost_us(&live.cost_commit_ns),
        "cost_record_us": cost_us(&live.cost_record_ns),
        "cost_flush_us": cost_us(&live.cost_flush_ns),
        "rio": record.rio.to_string(),
        "published": live.published.load(Relaxed),
        "commits": commits,
        "commit_mean_us": mean_us(commit_ns, commits),
        "commit_total_us": commit_ns as f64 / 1000.0,
        "pages_copied": live.pages_copied.load(Relaxed),
        "pages_hot": live.pages_hot.load(Relaxed),
        "pages_folded": live.pages_folded.load(Relaxed),
        "folds_undone": live.folds_undone.load(Relaxed),
        "journal_bytes": live.journal_bytes.load(Relaxed),
        "frames_used": sum(live, |p| &p.frames_used),
        "frame_limit": sum(live, |p| &p.frame_limit),
        "image_bytes": image_bytes,
        "image_len_bytes": image_len_bytes,
        "calls": live.calls.load(Relaxed) + sum(live, |p| &p.calls),
        "calls_trapped": live.calls_trapped.load(Relaxed),
        "nd_events": live.nd_events.load(Relaxed),
        "logged_events": live.logged_events.load(Relaxed),
        "visible_events": live.visible_events.load(Relaxed),
        "send_events": live.send_events.load(Relaxed),
        "receive_events": live.receive_events.load(Relaxed),
        "logged_bytes": live.logged_bytes.load(Relaxed),
        "committed_bytes": live.pages_copied.load(Relaxed).wrapping_mul(PAGE as u64),
        "replayed_events": live.replayed_events.load(Relaxed),
        "log_flushes": live.log_flushes.load(Relaxed),
        "log_flush_total_us": live.log_flush_ns.load(Relaxed) as f64 / 1000.0,
        "log_bound_commits": live.log_bound_commits.load(Relaxed),
        "read_bytes": sum(live, |p| &p.rchar),
        "written_bytes": sum(live, |p| &p.wchar),
        "recoveries": recoveries,
        "recovery_us": recovery_us,
        "crashes_in_a_row": live.crashes.load(Relaxed),
        "crash_commit": live.crash_commit.load(Relaxed),
    });
    all["processes"] = by_process(live).into();
    all
}

/// The same of each process that lives, the first one first.
fn by_process(live: &SharedLive) -> Vec<Value> {
    let lives = live.processes().iter().filter(|p| p.life() == Life::Lives);
    lives
        .map(|p| {
            json!({
                "pid": p.id.load(Relaxed),
                "command": ps::name_of(p),
                "calls": p.calls.load(Relaxed),
                "commits": p.commits.load(Relaxed),
                "read_bytes": p.rchar.load(Relaxed),
                "written_bytes": p.wchar.load(Relaxed),
                "frames_used": p.frames_used.load(Relaxed),
            })
        })
        .collect()
}

/// A counter of all processes together.
fn sum(live: &SharedLive, counter: fn(&Process) -> &AtomicU64) -> u64 {
    let all = live.processes().iter();
    all.map(|process| counter(process).load(Relaxed)).sum()
}

/// What `auto` has measured, if it did.
fn cost_us(ns: &AtomicU64) -> Option<f64> {
    let ns = ns.load(Relaxed);
    (ns != 0).then_some(ns as f64 / 1000.0)
}

/// Why the protocol was changed last, if it was.
fn reason(live: &SharedLive) -> Option<String> {
    let text = live.protocol_reason.split(|&b| b == 0).next()?;
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_shown_beside_the_figures() {
        let text = table(&json!({"commit_mean_us": 4.25, "recovery_us": [], "commits": 3}));
        assert!(text.contains("commit mean  4.2 us"), "{text}");
        assert!(text.contains("commits      3\n"), "{text}");
        assert!(text.contains("recovery     - us"), "{text}");
    }
}
