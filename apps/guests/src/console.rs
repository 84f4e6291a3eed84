//! The shell that a user would have, and the terminal or pipes between it and the harness.
//!
//! A terminal hangs up when its session leader dies. Under dcrun the keeper may be killed as well and the same command
//! run again at the same terminal, so neither the program nor dcrun can be the leader: as in real life a shell is. It
//! waits for a line in one fifo, runs the command in the foreground, writes `$?` to another fifo and waits again. Being
//! a shell script started by setsid(1), it needs no code of ours between fork and exec.

use crate::error::{Context, Error, Result};
use crate::session::Channel;
use crate::stillness;
use crate::workdir::WorkDir;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getsid, mkfifo, pipe, read, ttyname, write};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const ROWS: u16 = 24;
pub const COLUMNS: u16 = 80;

/// The loop of the shell; the trap keeps an interrupt meant for the program from ending the shell, also one that finds it
/// waiting; the parentheses keep what the shell says about a killed command out of the program's standard error.
const SHELL: &str = r#"
trap interrupted=1 INT QUIT
exec 3<"$1" 4>"$2" 5>&2 2>/dev/null
shift 2
while :; do
    interrupted=
    if read -r again <&3; then
        (exec "$@" 3<&- 4>&- 2>&5 5>&-)
        echo $? >&4
    elif [ -z "$interrupted" ]; then
        break
    fi
done
"#;

pub struct Console {
    shell: Child,
    go: File,
    status: File,
    input: Option<OwnedFd>,
    /// None when the output goes into a file.
    output: Option<OwnedFd>,
    /// The name of the terminal, if it is one.
    terminal: Option<PathBuf>,
    output_file: PathBuf,
    errors_file: PathBuf,
}

pub enum Happening {
    Output(Vec<u8>),
    /// The command ended with this status; all it wrote has been handed out before.
    Ended(i32),
    /// The time is over.
    Nothing,
}

impl Console {
    /// Opens the channel and starts the shell; the command itself runs at [`Console::start`].
    pub fn open(
        channel: Channel,
        dir: &WorkDir,
        command: &[OsString],
        env: &[(OsString, OsString)],
    ) -> Result<Self> {
        let place = dir.shell();
        let (go, go_path) = fifo(&place, "go")?;
        let (status, status_path) = fifo(&place, "status")?;
        let output_file = place.join("output");
        let errors_file = place.join("errors");
        let mut terminal = None;
        let mut setsid = Command::new("setsid");
        let (input, output) = match channel {
            Channel::Pty => {
                let size = Winsize {
                    ws_row: ROWS,
                    ws_col: COLUMNS,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let pty = openpty(Some(&size), None).context("open a pty")?;
                close_on_exec(&pty.master)?;
                close_on_exec(&pty.slave)?;
                terminal = Some(ttyname(&pty.slave).context("name the terminal")?);
                setsid
                    .arg("--ctty")
                    .stdin(copy(&pty.slave)?)
                    .stdout(copy(&pty.slave)?);
                setsid.stderr(pty.slave);
                (Some(copy(&pty.master)?), Some(pty.master))
            }
            Channel::Pipe => {
                let (read_in, write_in) = pipe().context("make a pipe")?;
                let (read_out, write_out) = pipe().context("make a pipe")?;
                close_on_exec(&write_in)?;
                close_on_exec(&read_out)?;
                setsid
                    .stdin(read_in)
                    .stdout(write_out)
                    .stderr(create(&errors_file)?);
                (Some(write_in), Some(read_out))
            }
            Channel::File => {
                setsid.stdin(Stdio::null()).stdout(create(&output_file)?);
                setsid.stderr(create(&errors_file)?);
                (None, None)
            }
        };
        for fd in input.iter().chain(output.iter()) {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make a channel wait-free")?;
        }
        // A harness in the background has interrupts ignored, and its heirs would have.
        setsid
            .args(["/usr/bin/env", "--default-signal"])
            .args(["/bin/sh", "-c", SHELL, "shell"])
            .arg(go_path)
            .arg(status_path)
            .args(command);
        setsid
            .env_clear()
            .envs(env.iter().cloned())
            .current_dir(dir.work());
        let shell = setsid.spawn().context("start setsid")?;
        Ok(Console {
            shell,
            go,
            status,
            input,
            output,
            terminal,
            output_file,
            errors_file,
        })
    }

    /// Has the shell run the command, the first time or again.
    pub fn start(&self) -> Result<()> {
        write(&self.go, b"go\n")
            .context("tell the shell to start")
            .map(|_| ())
    }

    /// The session that everything at this console belongs to.
    pub fn session_id(&self) -> i32 {
        self.shell.id() as i32
    }

    /// What everything at this console is doing now.
    pub fn doings(&self) -> String {
        stillness::describe(members(self.session_id()))
    }

    /// Waits for output or the end of the command.
    pub fn next(&mut self, until: Instant) -> Result<Happening> {
        loop {
            if let Some(bytes) = self.read_output()? {
                return Ok(Happening::Output(bytes));
            }
            if let Some(status) = self.read_status()? {
                // A terminal hands bytes over a moment after they were written.
                let bytes = self.await_output(Duration::from_millis(20))?;
                if let Some(bytes) = bytes {
                    write(&self.status, format!("{status}\n").as_bytes())
                        .context("put the status back")?;
                    return Ok(Happening::Output(bytes));
                }
                return Ok(Happening::Ended(status));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Happening::Nothing);
            }
            let mut fds = vec![PollFd::new(self.status.as_fd(), PollFlags::POLLIN)];
            fds.extend(
                self.output
                    .as_ref()
                    .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            );
            wait(&mut fds, left)?;
        }
    }

    /// Types; whatever comes meanwhile is returned, since a program that does not read may be waiting to be read.
    pub fn send(&mut self, bytes: &[u8], until: Instant) -> Result<Vec<u8>> {
        let mut seen = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let input = self
                .input
                .as_ref()
                .ok_or_else(|| Error::new("the input is closed"))?;
            match write(input, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EAGAIN) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Error::new("type: the program does not read its input"));
                    }
                    wait(
                        &mut [PollFd::new(input.as_fd(), PollFlags::POLLOUT)],
                        left.min(Duration::from_millis(5)),
                    )?;
                    if let Some(more) = self.read_output()? {
                        seen.extend(more);
                    }
                }
                Err(cause) => return Err(Error::new(format!("type: {cause}"))),
            }
        }
        Ok(seen)
    }

    /// Gives the terminal another size, as a window manager would: with stty, because the ioctl has no safe wrapper.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self
            .terminal
            .as_ref()
            .ok_or_else(|| Error::new("resize: no terminal"))?;
        let status = Command::new("stty")
            .arg("-F")
            .arg(terminal)
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .status()
            .context("run stty")?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new(format!("stty: {status}")))
        }
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// What went into the output file, when the channel is one.
    pub fn output_file(&self) -> Result<Option<Vec<u8>>> {
        if self.output.is_some() {
            return Ok(None);
        }
        fs::read(&self.output_file)
            .context("read the output file")
            .map(Some)
    }

    /// How much is in the output file so far.
    pub fn output_file_len(&self) -> usize {
        fs::metadata(&self.output_file).map_or(0, |meta| meta.len() as usize)
    }

    /// Standard error, when it is not the terminal.
    pub fn errors(&self) -> Vec<u8> {
        fs::read(&self.errors_file).unwrap_or_default()
    }

    fn read_output(&self) -> Result<Option<Vec<u8>>> {
        let Some(output) = &self.output else {
            return Ok(None);
        };
        let mut buffer = vec![0; 65536];
        match read(output, &mut buffer) {
            Ok(0) | Err(Errno::EAGAIN | Errno::EIO) => Ok(None),
            Ok(count) => {
                buffer.truncate(count);
                Ok(Some(buffer))
            }
            Err(cause) => Err(Error::new(format!("read the output: {cause}"))),
        }
    }

    fn await_output(&self, time: Duration) -> Result<Option<Vec<u8>>> {
        if let Some(output) = &self.output {
            wait(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], time)?;
        }
        self.read_output()
    }

    fn read_status(&self) -> Result<Option<i32>> {
        let mut buffer = [0; 64];
        match read(&self.status, &mut buffer) {
            Ok(0) | Err(Errno::EAGAIN) => Ok(None),
            Ok(count) => {
                let text = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
                text.parse()
                    .context(format_args!("read the exit status from {text:?}"))
                    .map(Some)
            }
            Err(cause) => Err(Error::new(format!("read the exit status: {cause}"))),
        }
    }
}

impl Drop for Console {
    /// Ends what still runs in the session, and only that.
    fn drop(&mut self) {
        for pid in members(self.session_id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The processes of a session, read from /proc.
fn members(session: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| in_session(*pid, session))
        .collect()
}

/// Whether the process is one of this session: no other may be killed.
pub fn in_session(pid: i32, session: i32) -> bool {
    pid > 1 && getsid(Some(Pid::from_raw(pid))).is_ok_and(|sid| sid.as_raw() == session)
}

fn wait(fds: &mut [PollFd], time: Duration) -> Result<()> {
    let millis = u16::try_from(time.as_millis().max(1)).unwrap_or(u16::MAX);
    match poll(fds, PollTimeout::from(millis)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(cause) => Err(Error::new(format!("wait for the console: {cause}"))),
    }
}

/// A fifo that is open for both directions, so that neither side waits for the other to open it.
fn fifo(place: &Path, name: &str) -> Result<(File, PathBuf)> {
    let path = place.join(name);
    mkfifo(&path, Mode::from_bits_truncate(0o600)).context(format_args!("make fifo {name}"))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(&path)
        .context(format_args!("open fifo {name}"))?;
    Ok((file, path))
}

fn create(path: &Path) -> Result<File> {
    File::create(path).context(format_args!("create {}", path.display()))
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().context("copy a descriptor")
}

fn close_on_exec(fd: impl AsFd) -> Result<()> {
    let fd: BorrowedFd = fd.as_fd();
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .context("close a descriptor on exec")
        .map(|_| ())
}
