//! The runtime's table of system calls, read from its source: `libdc/SYSTEM-CALLS.md` is made
//! from it, and what `dcrun doctor PROGRAM` knows of calls.

// Each of the two reads some of it.
#![allow(dead_code)]

/// One call.
#[derive(Clone, Debug)]
pub struct Row {
    pub number: u32,
    pub name: String,
    pub how: String,
    pub class: char,
    pub restarts: bool,
    pub note: String,
}

/// The rows of the table, one a line: `r(NUMBER, "NAME", HOW, CLASS, RESTARTS, "NOTE"),`.
pub fn rows(table: &str) -> Vec<Row> {
    let row = |line: &str| {
        let inside = line.trim().strip_prefix("r(")?.strip_suffix("),")?;
        let parts = split(inside);
        let [number, name, how, class, restarts, note] = &parts[..] else {
            panic!("a row of {} parts: {line}", parts.len());
        };
        Some(Row {
            number: number.parse().expect("a row begins with its number"),
            name: name.trim_matches('"').to_owned(),
            how: how.clone(),
            class: class.chars().next().expect("a class"),
            restarts: restarts == "true",
            note: note.trim_matches('"').to_owned(),
        })
    };
    let mut rows: Vec<Row> = table.lines().filter_map(row).collect();
    rows.sort_by_key(|row| row.number);
    rows
}

/// At the commas outside of quotes and parentheses.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        match c {
            ',' if depth == 0 && !quoted => parts.push(String::new()),
            _ => parts.last_mut().expect("there is one").push(c),
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

pub fn name_of_error(number: &str) -> &'static str {
    match number {
        "1" => "EPERM",
        "22" => "EINVAL",
        "38" => "ENOSYS",
        "95" => "EOPNOTSUPP",
        other => panic!("no name for error {other}"),
    }
}

impl Row {
    /// The words in brackets of a treatment: `Refuse(38, "why")`, `Lost("why")`.
    pub fn words(&self, treatment: &str) -> Option<Vec<String>> {
        let inside = self.how.strip_prefix(treatment)?.strip_prefix('(')?;
        let words = split(inside.strip_suffix(')')?);
        Some(
            words
                .iter()
                .map(|w| w.trim_matches('"').to_owned())
                .collect(),
        )
    }

    pub fn is_refused(&self) -> bool {
        self.how.starts_with("Refuse")
    }

    pub fn is_unknown(&self) -> bool {
        self.how == "Unknown"
    }

    /// Why what the call leaves in the process is not kept, if the table says that it is not.
    pub fn is_lost_for(&self) -> Option<String> {
        let why = self.how.strip_prefix("Lost(")?.strip_suffix(')')?;
        Some(why.trim_matches('"').to_owned())
    }

    /// Whether a recovery cannot bring a program back that has made this call.
    pub fn stops_recovery(&self) -> bool {
        self.note.starts_with("a recovery stops")
    }

    pub fn treatment(&self) -> String {
        let within = |how: &str| {
            let inside = how.split_once('(').map_or("", |(_, inside)| inside);
            split(inside.strip_suffix(')').unwrap_or(inside))
        };
        match self.how.as_str() {
            "Pass" => "to the kernel".to_owned(),
            "Wait" => "to the kernel; may wait".to_owned(),
            // What it changes is the machine's.
            "Around" => "committed around on both sides".to_owned(),
            how if how == "Unknown" || how.starts_with("Lost(") => {
                "committed around on both sides, with a warning".to_owned()
            }
            how if self.is_refused() => {
                let why = within(how);
                let error = name_of_error(&why[0]);
                match why[1].trim_matches('"') {
                    "" => format!("refused ({error})"),
                    reason => format!("refused ({error}): {reason}"),
                }
            }
            how => {
                let inside = within(how).join(", ");
                // A closure is called by what it calls.
                let called = inside.rsplit('|').next().unwrap_or_default().trim();
                format!("`{}`", called.split('(').next().unwrap_or_default())
            }
        }
    }
}
