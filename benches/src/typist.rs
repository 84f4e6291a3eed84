//! Types at a program in a terminal, key by key, and times the answers.
//!
//! script(1) brings the terminal. A key is answered when the program shows
//! anything; one that is answered by nothing is waited for a moment, which is
//! the same moment natively and hosted.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure, Outcome};
use crate::guest;
use crate::hosted::{Spent, spent};
use crate::sample::Sample;

/// How fast somebody types.
#[derive(Clone, Copy)]
pub enum Pace {
    /// A key every so often, as the thesis' users do (chapter 6: 100 ms).
    Every(Duration),
    /// The next key as soon as the last one is answered.
    AsAnswered,
}

pub struct Typed {
    pub spent: Spent,
    /// From a key to the first byte of its answer, us.
    pub answer_us: Sample,
}

/// What a key without an answer costs.
const UNANSWERED: Duration = Duration::from_millis(20);
/// No program here starts or ends more slowly.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `command` in a terminal and types the keys.
pub fn type_at(command: &Command, keys: &[Vec<u8>], pace: Pace) -> Outcome<Typed> {
    let mut terminal = in_terminal(command)?;
    let (answers, spent) = spent(|| {
        let mut child = terminal
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(|| "start script(1)".into())?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("pipes of a child"));
        };
        let shown = listen(output);
        let answers = converse(&mut input, &shown, keys, pace);
        if answers.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().doing(|| "wait for script(1)".into())?;
        let answers = answers?;
        match status.success() {
            true => Ok(answers),
            false => Err(Failure::new(format!("the program ended with {status}"))),
        }
    })?;
    Ok(Typed {
        spent,
        answer_us: Sample::new(answers),
    })
}

fn converse(
    input: &mut impl Write,
    shown: &Receiver<Instant>,
    keys: &[Vec<u8>],
    pace: Pace,
) -> Outcome<Vec<f64>> {
    if shown.recv_timeout(PATIENCE).is_err() {
        return Err(Failure::new("the program shows nothing"));
    }
    // The first screen comes in pieces.
    while shown.recv_timeout(Duration::from_millis(150)).is_ok() {}
    let mut answers = Vec::new();
    let begun = Instant::now();
    for (key, nth) in keys.iter().zip(1..) {
        while shown.try_recv().is_ok() {}
        let pressed = Instant::now();
        input.write_all(key).doing(|| "type".into())?;
        input.flush().doing(|| "type".into())?;
        match shown.recv_timeout(UNANSWERED) {
            Ok(at) => answers.push(at.saturating_duration_since(pressed).as_secs_f64() * 1e6),
            Err(RecvTimeoutError::Timeout) => {}
            // The last key ends the program.
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Pace::Every(each) = pace {
            std::thread::sleep((begun + each * nth).saturating_duration_since(Instant::now()));
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match shown.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(answers),
            Err(RecvTimeoutError::Timeout) => {
                return Err(Failure::new("the program did not end at its last key"));
            }
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

/// script(1) around a command: it wants a line for a shell.
fn in_terminal(command: &Command) -> Outcome<Command> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> = words
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    let mut terminal = Command::new(guest::packaged("script")?);
    terminal
        .args(["-q", "-e", "-f", "-c", &format!("exec {}", line.join(" "))])
        .arg("/dev/null")
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm");
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
