//! The real server as a child of the proxy, where the settings have a command for it.
//!
//! It is started, started again whenever it ends by itself, and stopped while the state beneath it
//! is exchanged: a server that keeps in memory what it has read would go on with a state that is no
//! more.
//!
//! `HOME/server.pid` has its process id and when it began. It dies with the proxy: two servers must not have one state.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long it may take to end after SIGTERM; then it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// It is not started again before this has passed since the last start.
const BREATH: Duration = Duration::from_millis(500);

pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    command: String,
    home: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_wanted: bool,
    running: Option<Pid>,
    /// It need not sync anything: `UNDO_SYNC` is `no` for it.
    is_relaxed: bool,
    is_over: bool,
}

impl Server {
    /// Starts the server. `home` is the folder of the undo manager.
    pub fn start(command: &str, home: &Path) -> io::Result<Server> {
        end_an_earlier_one(home)?;
        let shared = Arc::new(Shared {
            command: command.to_owned(),
            home: home.to_owned(),
            state: Mutex::new(State {
                is_wanted: true,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let worker = shared.clone();
        // The child dies with the thread that started it, so this one must live as long as we do.
        std::thread::Builder::new()
            .name("server".into())
            .spawn(move || worker.look_after())?;
        Ok(Server { shared })
    }

    /// Stops the server, if it runs, and does not return before it has ended.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        state.is_wanted = false;
        let mut signal = Signal::TERM;
        let mut end = Instant::now() + PATIENCE;
        while let Some(pid) = state.running {
            // (It may have ended already.)
            let _ = kill_process_group(pid, signal);
            let wait = end.saturating_duration_since(Instant::now());
            state = self
                .shared
                .changed
                .wait_timeout(state, wait.max(Duration::from_millis(10)))
                .unwrap_or_else(|p| p.into_inner())
                .0;
            if Instant::now() >= end {
                signal = Signal::KILL;
                end = Instant::now() + PATIENCE;
            }
        }
    }

    /// Whether it need not sync anything from its next start on.
    pub fn relax(&self, is_relaxed: bool) {
        self.shared.lock().is_relaxed = is_relaxed;
    }

    /// Has it run again after a [`Server::stop`].
    pub fn go_on(&self) {
        self.shared.lock().is_wanted = true;
        self.shared.changed.notify_all();
    }
}

/// The server of a proxy that has been killed dies with it, but not at once: until it is gone it has
/// its ports, its locks, and the state.
fn end_an_earlier_one(home: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(home.join("server.pid")).unwrap_or_default();
    let mut words = text.split_whitespace();
    let (pid, began) = (words.next(), words.next());
    let Some(pid) = pid.and_then(|p| p.parse().ok()).and_then(Pid::from_raw) else {
        return Ok(());
    };
    let end = Instant::now() + PATIENCE;
    while began.is_some() && start_time(pid.as_raw_nonzero().get()).as_deref() == began {
        if Instant::now() > end {
            let why = format!("the one before, process {text}, does not end");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// When a process began, which tells it from another one of this number; `None` if it is gone, or a
/// zombie without threads, which holds nothing any more.
fn start_time(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // (The name, in parentheses, may have spaces. Behind it the state is the first field.)
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if fields.first() == Some(&"Z") && threads < 2 {
        return None;
    }
    fields.get(19).map(|field| (*field).to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.stop();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn look_after(&self) {
        let mut state = self.lock();
        loop {
            while !state.is_wanted {
                if state.is_over {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(|p| p.into_inner());
            }
            let started = Instant::now();
            let mut child = match self.command(state.is_relaxed).spawn() {
                Ok(child) => child,
                Err(error) => {
                    eprintln!("undo-mail: cannot start the mail server: {error}");
                    drop(state);
                    std::thread::sleep(BREATH);
                    state = self.lock();
                    continue;
                }
            };
            state.running = Some(Pid::from_child(&child));
            drop(state);
            let pid = child.id();
            let began = start_time(pid as i32).unwrap_or_default();
            let _ = std::fs::write(self.home.join("server.pid"), format!("{pid} {began}\n"));
            let ended = child.wait();
            // What it has started must not go on without it.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            state = self.lock();
            state.running = None;
            self.changed.notify_all();
            if state.is_wanted {
                let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                eprintln!("undo-mail: the mail server has ended ({how}) and is started again");
                drop(state);
                std::thread::sleep(BREATH.saturating_sub(started.elapsed()));
                state = self.lock();
            }
        }
    }

    fn command(&self, is_relaxed: bool) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "sh", "-c"])
            .arg(child_of(std::process::id(), &self.command))
            .env("UNDO_LIVE", self.home.join("live"))
            .env("UNDO_SYNC", if is_relaxed { "no" } else { "yes" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0);
        command
    }
}

/// What the shell is given, once it dies with its parent: if that has died before, it must not begin.
/// Nobody would end it, and the proxy that comes after would find its ports taken.
fn child_of(parent: u32, command: &str) -> String {
    format!("[ \"$PPID\" = {parent} ] || exit 1; exec {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_proxy_has_died_before_it_began_does_not_begin() {
        let run = |parent: u32| {
            let mut shell = Command::new("sh");
            let output = shell.args(["-c", &child_of(parent, "echo begun")]).output();
            output.unwrap().stdout
        };
        assert_eq!(run(std::process::id()), b"begun\n");
        assert_eq!(run(std::process::id() + 1), b"");
    }
}
