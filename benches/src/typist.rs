//! Types at a program in a terminal, key by key, and times the answers.
//!
//! The terminal is a pty of our own, so that nothing stands between the program
//! and the clock. A key is *taken* when the program has run and waits for its
//! user again with no key left ([`crate::waiting`]): that holds for keys that are
//! answered by nothing as well, natively and hosted, with no pause in between.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::unistd::Pid;

use crate::failure::{Doing, Failure, Outcome};
use crate::guest;
use crate::hosted::{Run, Under};
use crate::sample::Sample;
use crate::waiting::Waiting;

/// How fast somebody types.
#[derive(Clone, Copy)]
pub enum Pace {
    /// A key every so often, as the thesis' users do (chapter 6: 100 ms).
    Every(Duration),
    /// The next key as soon as the last one is taken.
    AsTaken,
}

pub struct Typed {
    /// From the start of the command to its end.
    pub wall: Duration,
    /// From the first key until the last one was taken.
    pub typing: Duration,
    /// From a key to the first byte of its answer, us.
    pub answer_us: Sample,
}

/// No program here starts, answers or ends more slowly.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `command`, which is that of `run`, in a terminal and types the keys. The
/// last one ends the program.
pub fn type_at(run: &Run, command: &Command, keys: &[Vec<u8>], pace: Pace) -> Outcome<Typed> {
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).doing(|| "open a pty".into())?;
    let mut terminal = in_terminal(command, &slave.try_clone().doing(|| "pty".into())?)?;
    let begun = Instant::now();
    let mut child = terminal.spawn().doing(|| "start setsid(1)".into())?;
    drop(terminal);
    let output = File::from(master.try_clone().doing(|| "pty".into())?);
    let shown = listen(output);
    let mut session = Session {
        input: File::from(master),
        shown,
        patience: Instant::now() + PATIENCE,
    };
    let typed = session
        .begin(run, &child, slave)
        .and_then(|program| session.converse(&program, keys, pace));
    if typed.is_err() {
        let _ = child.kill();
    }
    let ended = session.end(&mut child);
    let (typing, answers) = typed?;
    ended?;
    Ok(Typed {
        wall: begun.elapsed(),
        typing,
        answer_us: Sample::new(answers),
    })
}

struct Session {
    input: File,
    shown: Receiver<Instant>,
    patience: Instant,
}

impl Session {
    /// Waits until the program has drawn its first screen and waits for a key.
    fn begin(&self, run: &Run, child: &Child, slave: std::os::fd::OwnedFd) -> Outcome<Waiting> {
        if self.shown.recv_timeout(PATIENCE).is_err() {
            return Err(Failure::new("the program shows nothing"));
        }
        // The first screen comes in pieces, and a program may throw away what
        // was typed before it.
        while self.shown.recv_timeout(Duration::from_millis(150)).is_ok() {}
        let pid = match run.under {
            Under::Nothing => Pid::from_raw(child.id() as i32),
            _ => run.worker()?,
        };
        let program = Waiting::of(pid, slave)?;
        program.until_it_waits(0, self.patience)?;
        Ok(program)
    }

    fn converse(
        &mut self,
        program: &Waiting,
        keys: &[Vec<u8>],
        pace: Pace,
    ) -> Outcome<(Duration, Vec<f64>)> {
        let mut answers = Vec::new();
        let begun = Instant::now();
        let mut typing = Duration::ZERO;
        for (key, nth) in keys.iter().zip(1..) {
            while self.shown.try_recv().is_ok() {}
            let before = program.reads();
            self.patience = Instant::now() + PATIENCE;
            let pressed = Instant::now();
            self.input.write_all(key).doing(|| "type".into())?;
            let goes_on = program
                .until_it_waits(before, self.patience)
                .map_err(|why| Failure::new(format!("key {nth}, {key:?}: {why}")))?;
            typing = begun.elapsed();
            if let Ok(at) = self.shown.try_recv() {
                answers.push(at.saturating_duration_since(pressed).as_secs_f64() * 1e6);
            }
            if !goes_on {
                break;
            }
            if let Pace::Every(each) = pace {
                std::thread::sleep((begun + each * nth).saturating_duration_since(Instant::now()));
            }
        }
        Ok((typing, answers))
    }

    fn end(&self, child: &mut Child) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().doing(|| "wait for the program".into())? {
                return match status.success() {
                    true => Ok(()),
                    false => Err(Failure::new(format!("the program ended with {status}"))),
                };
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::new("the program did not end at its last key"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// When something was shown; hangs up when nothing more can be.
fn listen(mut output: impl Read + Send + 'static) -> Receiver<Instant> {
    let (say, shown) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while matches!(output.read(&mut bytes), Ok(1..)) && say.send(Instant::now()).is_ok() {}
    });
    shown
}

/// setsid(1) around a command: it makes the pty its controlling terminal, and
/// then is the command.
fn in_terminal(command: &Command, slave: &std::os::fd::OwnedFd) -> Outcome<Command> {
    let end = || slave.try_clone().doing(|| "pty".into());
    let mut terminal = Command::new(guest::packaged("setsid")?);
    terminal
        .arg("--ctty")
        .arg(command.get_program())
        .args(command.get_args())
        .env("TERM", "xterm")
        .stdin(Stdio::from(end()?))
        .stdout(Stdio::from(end()?))
        // nvi does not like another one. What dcrun has to say is seen by nobody.
        .stderr(Stdio::from(end()?));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        terminal.current_dir(directory);
    }
    Ok(terminal)
}
