//! Plays the steps of a session at a console, and keeps all that comes back.
//!
//! The same code plays the native, the hosted and the killed run. It knows of kills in one place only: when the command
//! ends because the killer took everything away, it runs the command again, as a user would, and goes on with its step.

use crate::console::{COLUMNS, Console, Happening, ROWS};
use crate::error::{Context, Error, Result};
use crate::notice::{NoticeFilter, split_errors};
use crate::outcome::Outcome;
use crate::session::{Channel, Session, Step};
use regex::bytes::Regex;
use std::time::{Duration, Instant};

/// Whoever kills during the run, as the driver sees it.
pub trait Watcher {
    /// The script stands at a moment worth a kill.
    fn strike(&self);
    /// The command ended with this status: was that a kill of everything, after which it is to be run again?
    fn was_killed(&self, status: i32) -> bool;
}

/// Nobody kills.
pub struct Peace;

impl Watcher for Peace {
    fn strike(&self) {}
    fn was_killed(&self, _status: i32) -> bool {
        false
    }
}

pub struct Driver<'a> {
    session: &'a Session,
    console: Console,
    watcher: &'a dyn Watcher,
    /// Screens of the native run: what a snapshot waits for.
    expected: Option<&'a Outcome>,
    patience: Duration,
    screen: vt100::Parser,
    filter: NoticeFilter,
    used: usize,
    outcome: Outcome,
}

/// How long a person waits before typing ^C again at a program that came back.
const UNANSWERED: Duration = Duration::from_secs(3);

/// How long the output must be still before the native run takes a snapshot.
const STILL: Duration = Duration::from_millis(250);

impl<'a> Driver<'a> {
    pub fn new(
        session: &'a Session,
        console: Console,
        watcher: &'a dyn Watcher,
        expected: Option<&'a Outcome>,
        patience: Duration,
    ) -> Self {
        Driver {
            session,
            console,
            watcher,
            expected,
            patience,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
            filter: NoticeFilter::default(),
            used: 0,
            outcome: Outcome::default(),
        }
    }

    /// Plays the whole session; the files are collected by the caller.
    pub fn play(mut self) -> Result<Outcome> {
        self.start()?;
        for (number, step) in self.session.steps.iter().enumerate() {
            if let Err(cause) = self.step(step) {
                self.outcome.stuck =
                    Some(format!("step {number}: {cause}{}", self.console.doings()));
                break;
            }
        }
        if self.outcome.stuck.is_none() && self.outcome.status.is_none() {
            let ended = |driver: &mut Self| Ok(driver.outcome.status.is_some());
            if let Err(cause) = self.wait_until("the program's end", ended) {
                self.outcome.stuck = Some(format!("{cause}{}", self.console.doings()));
            }
        }
        self.finish()
    }

    fn start(&mut self) -> Result<()> {
        // A native run has no notices: what looks like one is the program's.
        if self.session.channel == Channel::Pty && self.expected.is_some() {
            match self.outcome.restarts.is_empty() {
                true => self.filter.started(),
                false => self.filter.started_again(),
            }
        }
        self.console.start()
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(bytes) => self.send(bytes),
            Step::Interrupt(pattern) => self.interrupt(pattern),
            Step::Expect(pattern) => self.expect(pattern),
            Step::Screen(pattern) => self.await_screen(pattern),
            Step::Snapshot(name) => self.snapshot(name),
            Step::Strike => {
                self.watcher.strike();
                Ok(())
            }
            Step::Resize { rows, columns } => {
                self.screen.screen_mut().set_size(*rows, *columns);
                self.console.resize(*rows, *columns)
            }
            Step::CloseInput => {
                self.console.close_input();
                Ok(())
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let seen = self.console.send(bytes, Instant::now() + self.patience)?;
        self.take_output(&seen);
        Ok(())
    }

    fn expect(&mut self, pattern: &str) -> Result<()> {
        let regex = compile(pattern)?;
        self.wait_until(&format!("output /{pattern}/"), |driver| {
            Ok(driver.take_match(&regex))
        })
    }

    /// Whether the output after the last match matches; then it is used up.
    fn take_match(&mut self, regex: &Regex) -> bool {
        let found = regex.find(&self.outcome.output[self.used..]);
        self.used += found.map_or(0, |found| found.end());
        found.is_some()
    }

    fn interrupt(&mut self, pattern: &str) -> Result<()> {
        let regex = compile(pattern)?;
        let deadline = Instant::now() + self.patience;
        let mut known = self.outcome.restarts.len();
        self.send(b"\x03")?;
        let mut until = Instant::now() + UNANSWERED;
        while !self.take_match(&regex) {
            if self.pump(until)? {
                continue;
            }
            if self.outcome.status.is_some() || Instant::now() > deadline {
                return self.expect(pattern);
            }
            if self.outcome.restarts.len() > known {
                known = self.outcome.restarts.len();
                self.outcome.retyped += 1;
                self.send(b"\x03")?;
            }
            until = Instant::now() + UNANSWERED;
        }
        Ok(())
    }

    fn await_screen(&mut self, pattern: &str) -> Result<()> {
        let regex = compile(&format!("(?m){pattern}"))?;
        self.wait_until(&format!("screen /{pattern}/"), |driver| {
            Ok(regex.is_match(driver.screen.screen().contents().as_bytes()))
        })?;
        self.used = self.outcome.output.len();
        Ok(())
    }

    /// Natively, the screen when it has come to rest. Otherwise the run has until its patience ends to show what the
    /// native run showed: when it does not, the screen that it shows instead is kept, for the comparison to report.
    fn snapshot(&mut self, name: &str) -> Result<()> {
        match self.native_picture() {
            None => while self.pump(Instant::now() + STILL)? {},
            Some(native) => {
                let until = Instant::now() + self.patience.min(Duration::from_secs(8));
                while self.picture() != native && self.pump(until)? {}
            }
        }
        let picture = self.picture();
        self.outcome.screens.push((name.to_owned(), picture));
        Ok(())
    }

    /// The picture that the native run kept at this place, when there is a native run to follow.
    fn native_picture(&self) -> Option<String> {
        let screens = &self.expected?.screens;
        let picture = screens
            .get(self.outcome.screens.len())
            .map(|(_, picture)| picture);
        Some(picture.cloned().unwrap_or_default())
    }

    fn wait_until(
        &mut self,
        what: &str,
        mut met: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let mut until = Instant::now() + self.patience;
        let mut seen = self.outcome.output.len();
        loop {
            if met(self)? {
                return Ok(());
            }
            if let Some(status) = self.outcome.status {
                return Err(Error::new(format!(
                    "wait for {what}: the program ended with {status}"
                )));
            }
            if !self.pump(until)? {
                let tail = &self.outcome.output[self.used.min(self.outcome.output.len())..];
                return Err(Error::new(format!(
                    "wait for {what}: nothing in {} s after {:?}",
                    self.patience.as_secs(),
                    String::from_utf8_lossy(&tail[tail.len().saturating_sub(300)..])
                )));
            }
            if self.outcome.output.len() > seen {
                seen = self.outcome.output.len();
                until = Instant::now() + self.patience;
            }
        }
    }

    /// Takes in the next happening; false when there was none in time, or the command has ended.
    fn pump(&mut self, until: Instant) -> Result<bool> {
        if self.outcome.status.is_some() {
            return Ok(false);
        }
        match self.console.next(until)? {
            Happening::Nothing => return Ok(false),
            Happening::Output(bytes) => self.take_output(&bytes),
            Happening::Ended(status) => {
                if self.watcher.was_killed(status) {
                    let len = match self.session.channel {
                        Channel::File => self.console.output_file_len(),
                        _ => self.outcome.output.len(),
                    };
                    self.outcome.restarts.push(len);
                    self.start()?;
                } else {
                    self.outcome.status = Some(status);
                }
            }
        }
        Ok(true)
    }

    fn take_output(&mut self, bytes: &[u8]) {
        let passed = self.filter.pass(bytes);
        if let Some(at) = passed.restart
            && let Some(restart) = self.outcome.restarts.last_mut()
        {
            *restart = self.outcome.output.len() + at;
        }
        self.keep(&passed.bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.session.channel == Channel::Pty {
            self.screen.process(bytes);
        }
        self.outcome.output.extend_from_slice(bytes);
    }

    /// The screen as text, with the place of the cursor.
    fn picture(&self) -> String {
        let screen = self.screen.screen();
        let (row, column) = screen.cursor_position();
        format!("{}\n[cursor {row},{column}]\n", screen.contents())
    }

    fn finish(mut self) -> Result<Outcome> {
        let rest = self.filter.finish();
        self.keep(&rest);
        if self.session.channel == Channel::Pty {
            let last = self.picture();
            self.outcome.screens.push(("final".into(), last));
        }
        if let Some(bytes) = self.console.output_file()? {
            self.outcome.output = bytes;
        }
        let (errors, mut notices) = split_errors(&self.console.errors());
        self.outcome.errors = errors;
        self.outcome.notices = std::mem::take(&mut self.filter.notices);
        self.outcome.notices.append(&mut notices);
        Ok(self.outcome)
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).context(format_args!("compile /{pattern}/"))
}
