//! One line of a trace, read.

use protocols::trace::{Class, Fate, Note};
use std::fmt;

/// Where a line stands: its number, and the trace's if there are several, both from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
pub struct Place {
    /// 0 if there is only one trace.
    pub trace: u32,
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        match self.trace {
            0 => Ok(()),
            trace => write!(f, " of trace {trace}"),
        }
    }
}

/// A trace that cannot be read on.
#[derive(Debug)]
pub enum TraceError {
    Read(std::io::Error),
    /// A line that is no line of a trace.
    Malformed {
        place: Place,
        cause: String,
    },
    /// A trace of a later format.
    Version {
        place: Place,
        found: String,
    },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::Read(error) => write!(f, "read the trace: {error}"),
            TraceError::Malformed { place, cause } => write!(f, "read {place}: {cause}"),
            TraceError::Version { place, found } => {
                write!(
                    f,
                    "read {place}: the trace has format {found}, this is a reader of 1"
                )
            }
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TraceError::Read(error) => Some(error),
            _ => None,
        }
    }
}

/// An event as its line tells it. One record is read into again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub place: Place,
    pub process: u32,
    pub sequence: u64,
    pub class: Class,
    pub call: String,
    pub fate: Fate,
    pub clock: Vec<(u32, u64)>,
    pub note: Note,
}

impl Record {
    pub fn new() -> Self {
        Record {
            place: Place::default(),
            process: 0,
            sequence: 0,
            class: Class::Visible,
            call: String::new(),
            fate: Fate::Open,
            clock: Vec::new(),
            note: Note::None,
        }
    }

    /// Reads one line; false if it holds no event.
    pub fn parse(&mut self, line: &str, place: Place) -> Result<bool, TraceError> {
        match line.strip_prefix("# trace ").map(str::trim) {
            Some(version) if place.line == 1 && version != "1" => {
                return Err(TraceError::Version {
                    place,
                    found: version.into(),
                });
            }
            _ => {}
        }
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let mut fields = line.split_ascii_whitespace();
        let Some(process) = fields.next() else {
            return Ok(false);
        };
        self.place = place;
        self.fields(process, fields)
            .map_err(|cause| TraceError::Malformed { place, cause })?;
        Ok(true)
    }

    fn fields<'a>(
        &mut self,
        process: &str,
        mut fields: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let mut field = |name: &str| fields.next().ok_or_else(|| format!("it has no {name}"));
        self.process = number(process, "process")?;
        self.sequence = number(field("sequence")?, "sequence")?;
        let class = field("class")?;
        self.class =
            Class::from_name(class).ok_or_else(|| format!("no class is called {class}"))?;
        self.call.clear();
        self.call.push_str(field("call")?);
        let fate = field("fate")?;
        self.fate = Fate::from_name(fate).ok_or_else(|| format!("no fate is called {fate}"))?;
        let clock = field("clock")?;
        self.clock.clear();
        for entry in clock.split(',') {
            self.clock.push(event(entry, "clock")?);
        }
        self.note = match fields.next() {
            None => Note::None,
            Some(text) => note(text)?,
        };
        match (self.class, self.note) {
            (Class::Receive, Note::From(..)) | (Class::Recover, Note::To(_)) => {}
            (Class::Prepare | Class::Abort, Note::Round(_)) => {}
            (Class::Commit, Note::None | Note::Round(_)) => {}
            (Class::Receive, _) => return Err("a receive says from which send it is".into()),
            (Class::Recover, _) => return Err("a recovery says to which event it leads".into()),
            (Class::Prepare | Class::Abort, _) => return Err("its round is missing".into()),
            (_, Note::None) => {}
            (class, _) => return Err(format!("a line of class {} has no note", class.name())),
        }
        match fields.next() {
            None => Ok(()),
            Some(more) => Err(format!("it goes on with {more}")),
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Record::new()
    }
}

fn number<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("its {name} is {text}, which is no number"))
}

/// A process and one of its events: `7:3`.
fn event(text: &str, name: &str) -> Result<(u32, u64), String> {
    let (process, sequence) = text
        .split_once(':')
        .ok_or_else(|| format!("{text} in its {name} is no event"))?;
    Ok((number(process, name)?, number(sequence, name)?))
}

fn note(text: &str) -> Result<Note, String> {
    match text.split_once('=') {
        Some(("from", value)) => event(value, "sender").map(|(p, s)| Note::From(p, s)),
        Some(("round", value)) => number(value, "round").map(Note::Round),
        Some(("to", value)) => number(value, "goal").map(Note::To),
        _ => Err(format!("no note is written {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::trace::Line;

    #[test]
    fn what_is_written_is_read() {
        let notes = |class| match class {
            Class::Receive => Note::From(7, 3),
            Class::Recover => Note::To(0),
            Class::Prepare | Class::Abort => Note::Round(1 << 40),
            _ => Note::None,
        };
        let place = Place { trace: 0, line: 5 };
        let mut record = Record::new();
        for class in Class::ALL {
            for fate in Fate::ALL {
                let clock = &[(7, 3), (9, 12)];
                let note = notes(class);
                let call = "sendto";
                let line = Line {
                    process: 9,
                    sequence: 12,
                    class,
                    call,
                    fate,
                    clock,
                    note,
                };
                let mut buffer = [0; 100];
                let len = line.write_to(&mut buffer).expect("it fits");
                let text = std::str::from_utf8(&buffer[..len]).expect("it is ASCII");
                assert!(record.parse(text, place).expect("it is a line"));
                let clock = clock.to_vec();
                let call = call.to_string();
                let read = Record {
                    place,
                    process: 9,
                    sequence: 12,
                    class,
                    call,
                    fate,
                    clock,
                    note,
                };
                assert_eq!(record, read);
            }
        }
    }

    #[test]
    fn what_is_no_line_is_said() {
        let mut record = Record::new();
        let mut parse = |text: &str, line| match record.parse(text, Place { trace: 0, line }) {
            Ok(event) => format!("{event}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(parse("# trace 1\n", 1), "false");
        assert_eq!(parse("  # a comment", 2), "false");
        assert_eq!(parse("1 1 nd time - 1:1 # and why", 3), "true");
        assert_eq!(
            parse("# trace 2\n", 1),
            "read line 1: the trace has format 2, this is a reader of 1"
        );
        for (text, cause) in [
            ("1 1 nd time -", "it has no clock"),
            ("1 1 dn time - 1:1", "no class is called dn"),
            ("1 1 nd time ? 1:1", "no fate is called ?"),
            ("1 x nd time - 1:1", "its sequence is x, which is no number"),
            ("1 1 nd time - 1", "1 in its clock is no event"),
            (
                "1 1 receive recv - 1:1",
                "a receive says from which send it is",
            ),
            ("1 1 nd time - 1:1 to=4", "a line of class nd has no note"),
            ("1 1 commit x commit 1:1 round=4 5", "it goes on with 5"),
        ] {
            assert_eq!(parse(text, 9), format!("read line 9: {cause}"));
        }
    }
}
