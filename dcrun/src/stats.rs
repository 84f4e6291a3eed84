//! The counters of a run, for people and for scripts.

use std::sync::atomic::Ordering::Relaxed;

use dc_image::header::Live;
use serde_json::{Value, json};

use crate::image;
use crate::record::Record;

/// Everything that is counted about a run, with the unit in each name.
pub fn counters(record: &Record, live: &Live) -> Value {
    let commits = live.commits.load(Relaxed);
    let recoveries = live.recoveries.load(Relaxed);
    let commit_ns = live.commit_ns.load(Relaxed);
    let ring = live.recovery_ns.len() as u64;
    let recovery_us: Vec<f64> = (recoveries.saturating_sub(ring)..recoveries)
        .map(|nth| live.recovery_ns[(nth % ring) as usize].load(Relaxed) as f64 / 1000.0)
        .collect();
    let (image_bytes, image_len_bytes) = image::size(&record.image).unwrap_or((0, 0));
    let mean_us =
        |total_ns: u64, count: u64| (count > 0).then(|| total_ns as f64 / count as f64 / 1000.0);
    json!({
        "name": record.name,
        "protocol": record.protocol.name(),
        "rio": record.rio.to_string(),
        "published": live.published.load(Relaxed),
        "commits": commits,
        "commit_mean_us": mean_us(commit_ns, commits),
        "commit_total_us": commit_ns as f64 / 1000.0,
        "pages_copied": live.pages_copied.load(Relaxed),
        "pages_hot": live.pages_hot.load(Relaxed),
        "journal_bytes": live.journal_bytes.load(Relaxed),
        "frames_used": live.frames_used.load(Relaxed),
        "frame_limit": live.frame_limit.load(Relaxed),
        "image_bytes": image_bytes,
        "image_len_bytes": image_len_bytes,
        "calls": live.calls.load(Relaxed),
        "calls_trapped": live.calls_trapped.load(Relaxed),
        "visible_events": live.visible_events.load(Relaxed),
        "nd_events": live.nd_events.load(Relaxed),
        "read_bytes": live.rchar.load(Relaxed),
        "written_bytes": live.wchar.load(Relaxed),
        "recoveries": recoveries,
        "recovery_us": recovery_us,
        "crashes_in_a_row": live.crashes.load(Relaxed),
        "crash_commit": live.crash_commit.load(Relaxed),
    })
}
