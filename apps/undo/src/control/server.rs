//! The manager's end of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Request;
use crate::manager::Manager;
use crate::verb::Service;
use crate::when::{self, When};
use crate::{Context, Error, Result};

/// Listens at `path` and answers operators from then on, in threads of its own.
pub fn serve<S: Service>(manager: Arc<Manager<S>>, path: &Path) -> Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).context(path.display(), "listen")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .context(path.display(), "set its mode")?;
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let manager = manager.clone();
            let _ = std::thread::Builder::new()
                .name("operator".into())
                .spawn(move || answer(&manager, stream));
        }
    };
    std::thread::Builder::new()
        .name("control".into())
        .spawn(accept)
        .context("control", "start")?;
    Ok(())
}

fn answer<S: Service>(manager: &Arc<Manager<S>>, stream: UnixStream) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let result = serde_json::from_str(&line)
            .context("request", "read")
            .and_then(|request| handle(manager, request));
        let answer = match result {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        if writeln!(writer, "{answer}").is_err() {
            return;
        }
    }
}

fn handle<S: Service>(manager: &Arc<Manager<S>>, request: Request) -> Result<Value> {
    match request {
        Request::Status => value(manager.state()),
        Request::Timeline { search } => value(manager.list(&search)?),
        Request::Show { lsn } => manager.show(lsn),
        Request::Snapshot => value(manager.snapshot()?),
        Request::Snapshots => value(manager.snapshots()),
        Request::Rewind { to, scope } => {
            let target = match when::parse(&to, when::now_us())? {
                When::Lsn(lsn) => lsn,
                When::Time(us) => manager.timeline().lsn_at(us),
            };
            value(manager.rewind(target, scope)?)
        }
        Request::Replay { dry_run: false } => value(manager.replay()?),
        Request::Replay { dry_run: true } => value(manager.rehearse()?),
        Request::Cancel => value(manager.cancel()?),
        Request::Undo => value(manager.undo_cycle()?),
        Request::Commit => value(manager.commit()?),
        Request::Drop { lsn } => value(manager.drop_verb(lsn)?),
        Request::Change { lsn, verb } => value(manager.change_verb(lsn, verb)?),
        Request::Insert { after, verb } => value(manager.insert_verb(after, verb)?),
        Request::Unedit { lsn } => value(manager.unedit(lsn)?),
        Request::Histogram { buckets } => histogram(manager, buckets),
        Request::At { time_us } => value(manager.timeline().lsn_at(time_us)),
        Request::Place => Ok(json!({ "live": manager.live_folder() })),
    }
}

fn value<T: serde::Serialize>(value: T) -> Result<Value> {
    serde_json::to_value(value).context("answer", "encode")
}

fn histogram<S: Service>(manager: &Arc<Manager<S>>, buckets: usize) -> Result<Value> {
    if !(1..=10_000).contains(&buckets) {
        return Err(Error::new("histogram", "make", "it has 1 to 10000 parts"));
    }
    let times = manager.timeline().times();
    let now = when::now_us();
    let first = times.iter().copied().min().unwrap_or(now);
    let span = (now - first.min(now)).max(1);
    let mut counts = vec![0u64; buckets];
    for time in times {
        let at =
            (time.saturating_sub(first) as u128 * buckets as u128 / (span as u128 + 1)) as usize;
        counts[at.min(buckets - 1)] += 1;
    }
    let snapshots = manager.snapshots();
    Ok(json!({ "first_us": first, "now_us": now, "counts": counts, "snapshots": snapshots }))
}
