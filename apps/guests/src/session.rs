//! What is played: a program, how it is joined to the outside, and every step a person would take with it.
//!
//! A session is data, so that the native run, the hosted run and the killed run cannot differ by anything but how the
//! program is started. Every step that types waits for what it expects: a sleep would hide a lost line and slow down
//! every run for the slowest machine.

use std::path::PathBuf;

/// One program with one script.
pub struct Session {
    pub name: &'static str,
    pub about: &'static str,
    pub program: Program,
    pub args: Vec<String>,
    /// In addition to the fixed TERM, LANG, HOME, PATH and TZ.
    pub env: Vec<(&'static str, &'static str)>,
    pub channel: Channel,
    /// Files that stand in the work directory before the program starts; one that begins with `#!` is executable.
    pub files: Vec<(&'static str, Contents)>,
    pub steps: Vec<Step>,
    pub stream: Stream,
    /// A program that shows nothing for long commits by the clock, or a kill would send it back to its start.
    pub interval_ms: Option<u32>,
    /// How long a native run may be silent while a step waits.
    pub patience_s: u64,
    /// What the program's exit status is to be.
    pub status: i32,
}

/// Makes the contents of a file, the same every time.
pub type Contents = fn() -> Vec<u8>;

/// Where the program comes from.
pub enum Program {
    /// An absolute path: what a Debian package installs.
    Installed(&'static str),
    /// A file that the session puts into its work directory.
    InWorkDir(&'static str),
    /// C source compiled by this command (the source file and `-o` are added).
    C {
        name: &'static str,
        source: &'static str,
        compiler: &'static [&'static str],
    },
    /// One Go file.
    Go {
        name: &'static str,
        source: &'static str,
    },
}

/// How the program's standard input and output are joined to the harness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// A controlling terminal of 24 lines by 80 columns.
    Pty,
    /// Output through a pipe that the harness reads; input is a pipe as well.
    Pipe,
    /// Output into a file that the shell opened; input is /dev/null.
    File,
}

/// What of the output can be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Every byte: two native runs give the same bytes.
    Exact,
    /// The screens only: how often the program repaints depends on the time that passes between keys.
    Screens,
    /// Nothing of it with another run: each run must be a whole chain by itself, see `chain`.
    Chained,
}

pub enum Step {
    Send(Vec<u8>),
    /// Type ^C and wait for output. One that is typed while nothing runs is lost, as the README says: after a restart that
    /// shows no effect of it, it is typed again.
    Interrupt(String),
    /// Wait until the output after the last match matches; output up to the end of the match is then used up.
    Expect(String),
    /// Wait until the text of the screen matches.
    Screen(String),
    /// Wait until the output has been still, then keep the screen under this name.
    Snapshot(&'static str),
    /// A moment worth a kill, for the modes that kill.
    Strike,
    /// The window of the terminal gets another size.
    Resize {
        rows: u16,
        columns: u16,
    },
    /// Close the program's standard input (pipes only).
    CloseInput,
}

impl Session {
    /// A session with nothing but a program at a terminal.
    pub fn new(name: &'static str, about: &'static str, program: Program) -> Self {
        Session {
            name,
            about,
            program,
            args: Vec::new(),
            env: Vec::new(),
            channel: Channel::Pty,
            files: Vec::new(),
            steps: Vec::new(),
            stream: Stream::Screens,
            interval_ms: None,
            patience_s: 20,
            status: 0,
        }
    }

    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(String::from));
        self
    }

    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    pub fn channel(mut self, channel: Channel) -> Self {
        self.channel = channel;
        self
    }

    pub fn file(mut self, name: &'static str, contents: Contents) -> Self {
        self.files.push((name, contents));
        self
    }

    pub fn stream(mut self, stream: Stream) -> Self {
        self.stream = stream;
        self
    }

    pub fn interval_ms(mut self, interval_ms: u32) -> Self {
        self.interval_ms = Some(interval_ms);
        self
    }

    pub fn patience_s(mut self, patience_s: u64) -> Self {
        self.patience_s = patience_s;
        self
    }

    pub fn status(mut self, status: i32) -> Self {
        self.status = status;
        self
    }

    /// Resizes the terminal; a program that counts the signals is given one dimension at a time.
    pub fn resize(mut self, rows: u16, columns: u16) -> Self {
        self.steps.push(Step::Resize { rows, columns });
        self
    }

    pub fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Send(bytes.as_ref().to_vec()));
        self
    }

    pub fn interrupt(mut self, pattern: impl Into<String>) -> Self {
        self.steps.push(Step::Interrupt(pattern.into()));
        self
    }

    pub fn expect(mut self, pattern: impl Into<String>) -> Self {
        self.steps.push(Step::Expect(pattern.into()));
        self
    }

    pub fn screen(mut self, pattern: impl Into<String>) -> Self {
        self.steps.push(Step::Screen(pattern.into()));
        self
    }

    pub fn snapshot(mut self, name: &'static str) -> Self {
        self.steps.push(Step::Snapshot(name));
        self
    }

    pub fn strike(mut self) -> Self {
        self.steps.push(Step::Strike);
        self
    }

    pub fn close_input(mut self) -> Self {
        self.steps.push(Step::CloseInput);
        self
    }

    /// Types one line and waits for the prompt that follows.
    pub fn line(self, line: impl AsRef<str>, prompt: &str) -> Self {
        self.send(format!("{}\r", line.as_ref())).expect(prompt)
    }

    /// The path of an installed program, if it is one and not there.
    pub fn missing(&self) -> Option<PathBuf> {
        let needs: &[&str] = match &self.program {
            Program::Installed(path) => &[path],
            Program::InWorkDir(_) => &[],
            Program::C { compiler, .. } => &[compiler[0]],
            Program::Go { .. } => &["/usr/bin/go"],
        };
        needs.iter().map(PathBuf::from).find(|path| !path.exists())
    }
}
