//! Everything that is left of a run for the outside world to see.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the shell would show as `$?`.
    pub status: Option<i32>,
    /// Output bytes in order: the terminal's, the pipe's or the file's.
    pub output: Vec<u8>,
    /// Standard error where it is not the terminal, without the lines of dcrun itself.
    pub errors: Vec<u8>,
    /// Offsets in `output` at which everything was killed and started again.
    pub restarts: Vec<usize>,
    /// Interrupts that nobody was there to take, and that were typed again.
    pub retyped: usize,
    /// Screens that the script kept, and the final one.
    pub screens: Vec<(String, String)>,
    /// The work directory, by relative path.
    pub files: BTreeMap<String, FileImage>,
    /// The step that did not get what it waited for.
    pub stuck: Option<String>,
    /// Lines that dcrun itself wrote.
    pub notices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileImage {
    File { mode: u32, bytes: Vec<u8> },
    Directory { mode: u32 },
    Link(String),
    Other(String),
}
