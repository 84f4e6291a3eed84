//! The directory of a run, in the state directory.
//!
//! ```text
//! $DCRUN_STATE | $XDG_STATE_HOME/dcrun | ~/.local/state/dcrun   0700
//!   NAME/             one path component; see `cli::parse_name`  0700
//!   NAME/run.json     what it was started with         written once
//!   NAME/keeper.pid   locked while keeper or worker live
//!   NAME/image        the image, with --rio disk
//!   NAME/done.json    final counters of a finished run; its image is removed then
//!   NAME/messages     what is said of a run in the background: see `handover`
//!   NAME/output       what a run prints that is resumed in the background: see `standard`
//!   NAME/untold       there until its caller is given the program's exit status
//! ```
//!
//! The lock belongs to the descriptor table that keeper and worker share, so a
//! run counts as alive until the last of the two is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::lstat;
use serde_json::Value;

use crate::machine::{descriptors, process, signals};
use crate::message::{Doing, Failure, Outcome};
use crate::record::Record;
use crate::standard::OUTPUT;
use crate::{cli, removal, seal, state_directory};

const LOCK: &str = "keeper.pid";
const RECORD: &str = "run.json";
const DONE: &str = "done.json";
const UNTOLD: &str = "untold";
/// What a keeper in the background has to say.
pub const MESSAGES: &str = "messages";
/// The kernel takes 6 MiB of arguments and environment; as JSON they are longer,
/// and some of them stand in a record twice.
const FILE_MAX: u64 = 128 << 20;
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

/// Whose lock it is, for those whom the kernel cannot tell.
fn note_keeper(lock: RawFd) {
    let pid = format!("{:<10}\n", process::pid());
    descriptors::write_at_start(lock, pid.as_bytes());
}

/// The directory of the run of this name. Every command comes to a run this way:
/// so the name is checked here, and who could have placed what lies there.
pub fn find(name: &str) -> Outcome<RunDirectory> {
    cli::parse_name(name).map_err(|flaw| Failure::own(format!("name `{name}`: {flaw}")))?;
    state_directory::find()?;
    let run = RunDirectory {
        name: name.to_owned(),
        path: state_directory::path()?.join(name),
    };
    run.check()?;
    Ok(run)
}

/// As [`find`], for a run that must be there.
pub fn existing(name: &str) -> Outcome<(RunDirectory, Record)> {
    let directory = find(name)?;
    match directory.record()? {
        Some(record) => Ok((directory, record)),
        None => Err(no_such_run(name)),
    }
}

pub fn no_such_run(name: &str) -> Failure {
    Failure::own(format!(
        "{name}: there is no run of this name; `dcrun ps` lists them"
    ))
}

/// What stands where a run's directory would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    Absent,
    Run,
    /// A directory that dcrun did not make.
    Foreign,
}

/// All runs, by name.
pub fn all() -> Outcome<Vec<RunDirectory>> {
    let Some(state) = state_directory::find()? else {
        return Ok(Vec::new());
    };
    let entries =
        fs::read_dir(&state).doing(|| format!("state directory {}: list it", state.display()))?;
    let mut runs: Vec<RunDirectory> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some(RunDirectory {
                name,
                path: entry.path(),
            })
        })
        .filter(|run| cli::parse_name(&run.name).is_ok())
        .filter(|run| fs::symlink_metadata(run.path.join(RECORD)).is_ok())
        .collect();
    runs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(runs)
}

impl RunDirectory {
    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn says(&self, what: &str) -> String {
        format!("{}: {what}", self.name)
    }

    /// Whether a path leads to it, however it is written.
    pub fn is_at(&self, path: &Path) -> bool {
        let place = |path: &Path| {
            let about = fs::symlink_metadata(path).ok()?;
            Some((about.dev(), about.ino()))
        };
        path == self.path || place(path).is_some_and(|there| place(&self.path) == Some(there))
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
            state_directory::make()?;
            state_directory::make_private(&self.path)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(self.file(LOCK))
                .doing(|| self.says(&format!("open its lock, {LOCK}")))?;
            let ours = file.metadata().doing(|| self.says("look at its lock"))?;
            if !ours.is_file() {
                return Err(Failure::own(
                    self.says(&format!("its lock, {LOCK}, is no file; remove it")),
                ));
            }
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
                let keeper = self.keeper(holder);
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
                note_keeper(held);
                return Ok(held);
            }
            descriptors::close(held);
        }
    }

    /// The lock, which this process's table holds, is this keeper's from now on.
    pub fn is_kept_by_this(&self, held: RawFd) {
        descriptors::own_lock(held);
        note_keeper(held);
    }

    /// Pid of the keeper that holds the lock. The kernel names it, but not across
    /// pid namespaces; then it is what the keeper wrote.
    fn keeper(&self, holder: i32) -> i32 {
        if holder > 0 {
            return holder;
        }
        self.read(LOCK)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Pid of the keeper, if it is alive. Once it is dead the rest follows.
    pub fn alive(&self) -> Option<i32> {
        let keeper = self.keeper(self.holder()?);
        is_alive(keeper).then_some(keeper)
    }

    /// Pid of the lock's holder; not positive if it is in another pid namespace.
    pub fn holder(&self) -> Option<i32> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.file(LOCK))
            .ok()?;
        descriptors::lock_holder(file.as_raw_fd())
    }

    /// An error if somebody else could have placed what is there; that nothing
    /// is there is none.
    pub fn check(&self) -> Outcome<()> {
        match lstat(&self.path) {
            Ok(about) => state_directory::check_private(self.path.display(), &about),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(Failure::own(self.says(&format!(
                "look at {}: {}",
                self.path.display(),
                error.desc()
            )))),
        }
    }

    /// Whether its directory is there, and is a run's: it has a run's own files.
    pub fn recognise(&self) -> Outcome<Recognised> {
        self.check()?;
        let has = |name| fs::symlink_metadata(self.file(name)).is_ok_and(|about| about.is_file());
        if fs::symlink_metadata(&self.path).is_err() {
            Ok(Recognised::Absent)
        } else if has(RECORD) || has(LOCK) {
            Ok(Recognised::Run)
        } else {
            Ok(Recognised::Foreign)
        }
    }

    pub fn record(&self) -> Outcome<Option<Record>> {
        let Some(value) = self.read_sealed(RECORD)? else {
            return Ok(None);
        };
        let record = Record::from_json(&value)
            .map_err(|field| self.damaged(RECORD, &format!("field {field}")))?;
        if record.name != self.name {
            return Err(self.damaged(RECORD, &format!("it is of a run `{}`", record.name)));
        }
        Ok(Some(record))
    }

    fn damaged(&self, name: &str, cause: &str) -> Failure {
        Failure::own(self.says(&format!(
            "{name} is damaged ({cause}); `dcrun rm {}` removes the run, --fresh starts over",
            self.name
        )))
    }

    /// A file of the run, whole; one that is no file of the user's is an error.
    fn read(&self, name: &str) -> io::Result<String> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.file(name))?;
        let about = file.metadata()?;
        let odd = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if !about.is_file() {
            return odd("it is no file");
        }
        if about.uid() != process::uid() {
            return odd("it belongs to another user");
        }
        if about.len() > FILE_MAX {
            return odd("it is too long");
        }
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    /// A file that [`Self::write`] has written; `None` if it is not there.
    fn read_sealed(&self, name: &str) -> Outcome<Option<Value>> {
        match self.read(name) {
            Ok(text) => seal::open(&text)
                .map(Some)
                .map_err(|flaw| self.damaged(name, &flaw)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.damaged(name, &error.to_string())),
        }
    }

    /// A file to which something is added of a run in the background: one that is a file of
    /// the user's alone, and of no other name.
    pub fn open_to_add(&self, name: &str) -> Outcome<File> {
        let path = self.file(name);
        let open = || {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(&path)?;
            let about = file.metadata()?;
            match about.is_file() && about.nlink() == 1 && about.uid() == process::uid() {
                true => Ok(file),
                false => Err(io::Error::other(
                    "it is no file of the run's alone; remove it",
                )),
            }
        };
        open().doing(|| format!("{}: open it", path.display()))
    }

    /// What was added to such a file behind its first bytes, if that is not too much.
    pub fn added(&self, name: &str, from: u64) -> String {
        const MUCH: u64 = 1 << 16;
        let read = || {
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(self.file(name))?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(MUCH).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
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

    /// Final counters of a finished run; `None` if it is not finished.
    pub fn done(&self) -> Outcome<Option<Value>> {
        let Some(counters) = self.read_sealed(DONE)? else {
            return Ok(None);
        };
        match counters["exit_status"].as_u64() {
            Some(0..=255) => Ok(Some(counters)),
            _ => Err(self.damaged(DONE, "field exit_status")),
        }
    }

    /// Writes them down; the exit status among them is still to be told. If
    /// `durable`, they are found again after a loss of power.
    pub fn write_done(&self, counters: &Value, durable: bool) -> Outcome<()> {
        self.replace(UNTOLD, "")?;
        self.write(DONE, counters)?;
        if durable {
            let sync = |path: &Path| File::open(path)?.sync_all();
            sync(&self.file(DONE))
                .and_then(|()| sync(&self.path))
                .doing(|| self.says(&format!("write {DONE} to its storage")))?;
        }
        Ok(())
    }

    /// The exit status of a finished run whose keeper died before it could tell it.
    pub fn untold(&self) -> Outcome<Option<u8>> {
        if fs::symlink_metadata(self.file(UNTOLD)).is_err() {
            return Ok(None);
        }
        let done = self.done()?;
        let status = done.and_then(|done| done["exit_status"].as_u64());
        Ok(status.and_then(|status| u8::try_from(status).ok()))
    }

    /// The exit status is told, as far as anybody can know.
    pub fn told(&self) {
        let _ = fs::remove_file(self.file(UNTOLD));
    }

    fn write(&self, name: &str, value: &Value) -> Outcome<()> {
        self.replace(name, &seal::close(value))
    }

    /// Replaces a file as a whole.
    fn replace(&self, name: &str, text: &str) -> Outcome<()> {
        let temporary = self.file(&format!("{name}.new"));
        let write = || {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
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
            "untold.new",
            MESSAGES,
            OUTPUT,
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
        removal::remove(&self.name)
    }
}

/// Removes the oldest records of finished runs whose exit status is told. `own` is
/// the run whose lock this process holds: it must not even be looked at, or the
/// lock were gone.
pub fn prune(own: &str) {
    let Ok(runs) = all() else { return };
    let finished_at = |run: &RunDirectory| {
        let untold = fs::symlink_metadata(run.file(UNTOLD)).is_ok();
        let about = fs::symlink_metadata(run.file(DONE)).ok()?;
        about.modified().ok().filter(|_| !untold)
    };
    let mut finished: Vec<_> = runs
        .into_iter()
        .filter(|run| run.name != own && run.check().is_ok())
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
