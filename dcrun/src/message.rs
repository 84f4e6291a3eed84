//! What dcrun says, and the failures it says it about.
//!
//! A failure is object + action + cause + what to do, and carries the exit
//! status that belongs to it. Everything goes to one descriptor, which is
//! moved out of the program's sight before a worker lives: number 2 belongs to
//! the program from then on.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::machine::descriptors;

/// Exit status for dcrun's own faults.
pub const OWN_FAULT: u8 = 125;
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;

pub type Outcome<T> = Result<T, Failure>;

/// Why a command ends, and with which exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    pub fn own(text: impl Into<String>) -> Failure {
        Failure {
            status: OWN_FAULT,
            text: text.into(),
        }
    }
    pub fn not_executable(text: impl Into<String>) -> Failure {
        Failure {
            status: NOT_EXECUTABLE,
            text: text.into(),
        }
    }
    pub fn not_found(text: impl Into<String>) -> Failure {
        Failure {
            status: NOT_FOUND,
            text: text.into(),
        }
    }
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Names the object and the action of an operation that may fail.
pub trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|cause| Failure::own(format!("{}: {cause}", what())))
    }
}

static SINK: AtomicI32 = AtomicI32::new(2);

/// From now on messages go to this descriptor.
pub fn speak_through(number: RawFd) {
    SINK.store(number, Ordering::Relaxed);
}

/// The descriptor that they go to.
pub fn sink() -> RawFd {
    SINK.load(Ordering::Relaxed)
}

/// One message, in one write, so that lines of several runs do not mix.
pub fn say(text: &str) {
    write_line(&printable(text));
}

/// A message of several lines.
pub fn say_lines(text: &str) {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    write_line(&lines.join("\n"));
}

fn write_line(text: &str) {
    let line = format!("dcrun: {text}\n");
    descriptors::write_all(SINK.load(Ordering::Relaxed), line.as_bytes());
}

/// Text as a terminal may have it: names, arguments and images may hold what
/// moves its cursor, or turns its line around.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if commands_terminals(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// JSON as text. JSON's own escapes leave some of what commands a terminal; such
/// characters stand in strings only, where they may be escaped.
pub fn json_text(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        if c != '\n' && commands_terminals(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

/// Control characters, ends of lines that are none to most programs, and what
/// changes the direction of writing.
fn commands_terminals(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown_instead() {
        assert_eq!(
            printable("a \u{e9}\u{4e2d} 'x' \\"),
            "a \u{e9}\u{4e2d} 'x' \\"
        );
        assert_eq!(
            printable("a\u{1b}[2J\n\u{9b}\u{202e}"),
            "a\\u{1b}[2J\\n\\u{9b}\\u{202e}"
        );
    }

    #[test]
    fn json_is_the_same_value_without_commands() {
        let value = serde_json::json!({"a\u{9b}": ["\u{1b}\u{7f}\u{202e}\n", 1.5]});
        let text = json_text(&value);
        assert!(
            text.chars().all(|c| c == '\n' || !commands_terminals(c)),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
