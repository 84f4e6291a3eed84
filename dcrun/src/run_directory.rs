//! The state directory: one directory a run.
//!
//! ```text
//! $DCRUN_STATE | $XDG_STATE_HOME/dcrun | ~/.local/state/dcrun   0700
//!   NAME/run.json     what it was started with         written once
//!   NAME/keeper.pid   locked while keeper or worker live
//!   NAME/image        the image, with --rio disk
//!   NAME/done.json    final counters of a finished run; no image then
//!   NAME/untold       there until its caller is given the program's exit status
//! ```
//!
//! The lock belongs to the descriptor table that keeper and worker share, so a
//! run counts as alive until the last of the two is gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{descriptors, process, signals};
use crate::message::{Doing, Failure, Outcome};
use crate::record::Record;

const LOCK: &str = "keeper.pid";
const RECORD: &str = "run.json";
const DONE: &str = "done.json";
const UNTOLD: &str = "untold";
/// Records of finished runs that are kept, for `ps` and `stats`.
const DONE_KEPT: usize = 64;
/// How long a killed keeper's worker may take to go.
const DYING: Duration = Duration::from_secs(10);

/// The directory of one run; it need not exist.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    pub name: String,
    pub path: PathBuf,
}

/// The directory that holds all runs of this user.
pub fn state_directory() -> Outcome<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let path = set("DCRUN_STATE")
        .or_else(|| set("XDG_STATE_HOME").map(|path| path.join("dcrun")))
        .or_else(|| set("HOME").map(|path| path.join(".local/state/dcrun")))
        .ok_or_else(|| {
            Failure::own(
                "state directory: none of DCRUN_STATE, XDG_STATE_HOME and HOME is set; \
                 set DCRUN_STATE to a directory of yours",
            )
        })?;
    std::path::absolute(&path)
        .doing(|| format!("state directory {}: make it absolute", path.display()))
}

pub fn find(name: &str) -> Outcome<RunDirectory> {
    Ok(RunDirectory {
        name: name.to_owned(),
        path: state_directory()?.join(name),
    })
}

/// As [`find`], for a run that must be there.
pub fn existing(name: &str) -> Outcome<(RunDirectory, Record)> {
    let directory = find(name)?;
    match directory.record()? {
        Some(record) => Ok((directory, record)),
        None => Err(Failure::own(format!(
            "{name}: there is no run of this name; `dcrun ps` lists them"
        ))),
    }
}

/// All runs, by name.
pub fn all() -> Outcome<Vec<RunDirectory>> {
    let state = state_directory()?;
    let entries = match fs::read_dir(&state) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Failure::own(format!(
                "state directory {}: {error}",
                state.display()
            )));
        }
    };
    let mut runs: Vec<RunDirectory> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some(RunDirectory {
                name,
                path: entry.path(),
            })
        })
        .filter(|run| run.path.join(RECORD).exists())
        .collect();
    runs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(runs)
}

/// Makes a directory that only its owner can enter, or checks that it is one.
pub fn make_private(path: &Path) -> Outcome<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("directory {}: make it", path.display()))?;
    let about =
        fs::symlink_metadata(path).doing(|| format!("directory {}: look at it", path.display()))?;
    let shown = path.display();
    if !about.is_dir() {
        return Err(Failure::own(format!(
            "directory {shown}: it is no directory; remove it"
        )));
    }
    if about.uid() != process::uid() {
        return Err(Failure::own(format!(
            "directory {shown}: it belongs to user {}, not to you; remove it or choose another",
            about.uid()
        )));
    }
    if about.mode() & 0o077 != 0 {
        return Err(Failure::own(format!(
            "directory {shown}: others can enter it (mode {:o}), and images hold the memory of \
             programs; `chmod 700` it",
            about.mode() & 0o777
        )));
    }
    Ok(())
}

impl RunDirectory {
    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn says(&self, what: &str) -> String {
        format!("{}: {what}", self.name)
    }

    /// Where the image lies with `--rio disk`.
    pub fn image(&self) -> PathBuf {
        self.file("image")
    }

    /// Makes the directory and takes its lock, which lives as long as the
    /// returned descriptor. With `number`, the descriptor is put there first:
    /// closing any other of the same file would give the lock away.
    pub fn lock(&self, number: Option<RawFd>) -> Outcome<RawFd> {
        let mut seen_dying = None;
        loop {
            make_private(&state_directory()?)?;
            make_private(&self.path)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.file(LOCK))
                .doing(|| self.says("open its lock"))?;
            let ours = file.metadata().doing(|| self.says("look at its lock"))?;
            let held = match number {
                Some(number) => {
                    descriptors::place(file.into(), number)
                        .doing(|| self.says("place its lock"))?;
                    number
                }
                None => file.into_raw_fd(),
            };
            let answer = descriptors::lock_table(held).doing(|| self.says("lock its directory"))?;
            if let Err(holder) = answer {
                // A keeper that was just killed leaves a worker that is dying.
                let keeper = self.keeper_pid().unwrap_or(holder);
                let since = *seen_dying.get_or_insert_with(Instant::now);
                if is_alive(keeper) || since.elapsed() > DYING {
                    return Err(Failure::own(format!(
                        "{}: this run is alive already, with keeper {keeper}; wait for it, end \
                         it with `dcrun kill {}`, or start another with --name",
                        self.name, self.name
                    )));
                }
                descriptors::close(held);
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            // `dcrun rm` may have taken the directory away before we had the lock.
            if fs::metadata(self.file(LOCK)).is_ok_and(|there| there.ino() == ours.ino()) {
                let pid = format!("{:<10}\n", process::pid());
                descriptors::write_all(held, pid.as_bytes());
                return Ok(held);
            }
            descriptors::close(held);
        }
    }

    /// Pid of the keeper that last held the lock.
    fn keeper_pid(&self) -> Option<i32> {
        fs::read_to_string(self.file(LOCK))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Pid of the keeper, if it is alive. Once it is dead the rest follows.
    pub fn alive(&self) -> Option<i32> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.file(LOCK))
            .ok()?;
        let holder = descriptors::lock_holder(file.as_raw_fd())?;
        let keeper = self.keeper_pid().unwrap_or(holder);
        is_alive(keeper).then_some(keeper)
    }

    pub fn record(&self) -> Outcome<Option<Record>> {
        let text = match fs::read_to_string(self.file(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::own(self.says(&format!("read run.json: {error}")))),
        };
        let damaged = |cause: String| {
            Failure::own(self.says(&format!(
                "run.json is damaged ({cause}); `dcrun rm {}` removes the run",
                self.name
            )))
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let record =
            Record::from_json(&value).map_err(|field| damaged(format!("field {field}")))?;
        Ok(Some(record))
    }

    pub fn write_record(&self, record: &Record) -> Outcome<()> {
        self.write(RECORD, &record.to_json())
    }

    /// Sees to it that the record is found again after a loss of power.
    pub fn make_durable(&self) -> Outcome<()> {
        let state = self.path.parent().unwrap_or(Path::new("/"));
        let sync = |path: &Path| File::open(path)?.sync_all();
        sync(&self.file(RECORD))
            .and_then(|()| sync(&self.path))
            .and_then(|()| sync(state))
            .doing(|| self.says("write its record to its storage"))
    }

    /// Final counters of a finished run.
    pub fn done(&self) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(self.file(DONE)).ok()?).ok()
    }

    /// Writes them down; the exit status among them is still to be told.
    pub fn write_done(&self, counters: &Value) -> Outcome<()> {
        File::create(self.file(UNTOLD)).doing(|| self.says(&format!("write {UNTOLD}")))?;
        self.write(DONE, counters)
    }

    /// The exit status of a finished run whose keeper died before it could tell it.
    pub fn untold(&self) -> Option<u8> {
        let status = self.done()?["exit_status"].as_u64()?;
        fs::symlink_metadata(self.file(UNTOLD)).ok()?;
        u8::try_from(status).ok()
    }

    /// The exit status is told, as far as anybody can know.
    pub fn told(&self) {
        let _ = fs::remove_file(self.file(UNTOLD));
    }

    /// Replaces a file as a whole.
    fn write(&self, name: &str, value: &Value) -> Outcome<()> {
        let temporary = self.file(&format!("{name}.new"));
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(format!("{value:#}\n").as_bytes())?;
            fs::rename(&temporary, self.file(name))
        };
        write().doing(|| self.says(&format!("write {name}")))
    }

    /// Removes what is in the directory, but not the lock.
    pub fn clear(&self) -> Outcome<()> {
        for name in [
            RECORD,
            DONE,
            UNTOLD,
            "image",
            "run.json.new",
            "done.json.new",
        ] {
            match fs::remove_file(self.file(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::own(self.says(&format!("remove {name}: {error}"))));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the directory with all that is in it.
    pub fn remove(&self) -> Outcome<()> {
        fs::remove_dir_all(&self.path).doing(|| self.says("remove its directory"))
    }
}

/// Removes the oldest records of finished runs. `own` is the run whose lock
/// this process holds: it must not even be looked at, or the lock were gone.
pub fn prune(own: &str) {
    let Ok(runs) = all() else { return };
    let finished_at = |run: &RunDirectory| fs::metadata(run.file(DONE)).ok()?.modified().ok();
    let mut finished: Vec<_> = runs
        .into_iter()
        .filter(|run| run.name != own)
        .filter_map(|run| Some((finished_at(&run)?, run)))
        .collect();
    let surplus = finished.len().saturating_sub(DONE_KEPT);
    finished.sort_by_key(|(time, _)| *time);
    for (_, run) in finished.into_iter().take(surplus) {
        if run.alive().is_none() {
            let _ = run.remove();
        }
    }
}

/// Alive and not a zombie: a zombie's locks go when its table does.
fn is_alive(pid: i32) -> bool {
    if !signals::exists(pid) {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.starts_with(['Z', 'X'])
}
