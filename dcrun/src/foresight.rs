//! `dcrun doctor PROGRAM`: what of a program may not come back, as far as its files tell before it
//! runs.
//!
//! They tell which functions it takes from its libraries, and these from one another. Whether it
//! ever calls them only its run shows, and then the runtime says so. What is looked for is what the
//! runtime's own table refuses or does not keep (see `call_limits`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::call_limits::{self, Kind, Limit};
use crate::elf_links::{self, Links};
use crate::libraries::Directories;
use crate::message::{Doing, NOT_EXECUTABLE, Outcome, json_text, printable};
use crate::program;

/// Exit status if something was found.
const FOUND: u8 = 1;
/// More libraries than a program has.
const LIBRARIES_MAX: usize = 4096;
/// The C library itself has every call, so what it imports and defines says nothing.
const OF_C: [&str; 10] = [
    "ld-linux",
    "libc.so",
    "libm.so",
    "libpthread.so",
    "libdl.so",
    "librt.so",
    "libresolv.so",
    "libutil.so",
    "libanl.so",
    "ld-musl",
];

/// What may not come back, or not run at all.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    kind: Option<Kind>,
    /// The call; empty if it is the program itself.
    call: &'static str,
    says: String,
    /// Which functions of which files call it.
    by: BTreeSet<(String, PathBuf)>,
}

#[derive(Default)]
struct Report {
    program: PathBuf,
    libraries: usize,
    findings: Vec<Finding>,
    /// What could not be seen.
    notes: Vec<String>,
}

/// Looks at a program without running it.
pub fn show(command: &[OsString], as_json: bool) -> Outcome<u8> {
    let report = examine(command)?;
    let text = match as_json {
        true => json_text(&report.to_json()),
        false => report.to_text(),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(match report.findings.is_empty() {
        true => 0,
        false => FOUND,
    })
}

fn examine(command: &[OsString]) -> Outcome<Report> {
    let program = match program::resolve(command, std::env::var_os("PATH").as_deref()) {
        Ok(program) => program,
        Err(failure) if failure.status() == NOT_EXECUTABLE => {
            // It is there, and that it does not run is what was asked.
            let mut report = Report {
                program: PathBuf::from(&command[0]),
                ..Report::default()
            };
            report
                .findings
                .push(Finding::of_program(failure.to_string()));
            return Ok(report);
        }
        Err(failure) => return Err(failure),
    };
    let mut report = Report {
        program: program.file.clone(),
        ..Report::default()
    };
    if program.arguments.len() > command.len() {
        report.notes.push(format!(
            "it is a script of {}, which is looked at instead; what the script itself does is not",
            program.file.display()
        ));
    }
    let file = File::open(&program.file)
        .doing(|| format!("program {}: open it", program.file.display()))?;
    let links = elf_links::read(&file);
    match links.interpreter {
        Some(ref loader) if !Path::new(loader).exists() => {
            report.findings.push(Finding::of_program(format!(
                "its loader {loader} is not there; install the C library that it was built with"
            )));
        }
        None if links.needed.is_empty() => report.is_static(&program.file, &links),
        _ => {}
    }
    report.take_functions(&program.file, &links.imported);
    report.take_libraries(&program.file, links);
    report.findings.sort();
    Ok(report)
}

impl Finding {
    fn of_program(says: String) -> Finding {
        Finding {
            kind: None,
            call: "",
            says,
            by: BTreeSet::new(),
        }
    }

    fn kind(&self) -> &'static str {
        self.kind.map_or("cannot run", Kind::name)
    }

    fn to_json(&self) -> Value {
        let by = |(function, file): &(String, PathBuf)| json!({ "function": function, "file": file.to_string_lossy() });
        json!({
            "kind": self.kind(),
            "call": self.call,
            "says": self.says,
            "by": self.by.iter().map(by).collect::<Vec<_>>(),
        })
    }

    fn to_text(&self) -> String {
        let by: Vec<String> = self
            .by
            .iter()
            .map(|(function, file)| match function == self.call {
                true => file.display().to_string(),
                false => format!("{} ({function})", file.display()),
            })
            .collect();
        let (kind, says) = (self.kind(), printable(&self.says));
        match by.is_empty() {
            true => format!("{kind:<17} {says}\n"),
            false => format!(
                "{kind:<17} {}: {says}\n{:18}in {}\n",
                self.call,
                "",
                printable(&by.join(", "))
            ),
        }
    }
}

impl Report {
    /// Nothing is taken from anybody; its own functions may still have their names.
    fn is_static(&mut self, file: &Path, links: &Links) {
        if links.is_of_go {
            self.notes.push(
                "it is of Go, whose programs make calls without the C library; which, its names \
                 do not tell"
                    .to_owned(),
            );
        } else if links.defined.is_empty() {
            self.notes.push(
                "it is linked statically, and without names; which calls it makes cannot be told"
                    .to_owned(),
            );
        } else {
            self.notes.push(
                "it is linked statically; what is in it of the C library it may call".to_owned(),
            );
            self.take_functions(file, &links.defined);
        }
    }

    fn take_functions(&mut self, file: &Path, functions: &[String]) {
        for function in functions {
            if let Some(limit) = call_limits::of_function(function) {
                self.take(limit, function, file);
            }
        }
        let mut note = |function: &str, what: &str| {
            if functions.iter().any(|name| name == function) && file == self.program {
                self.notes.push(what.to_owned());
            }
        };
        note(
            "syscall",
            "it makes calls by their numbers (syscall(2)), which its names do not tell",
        );
        note(
            "dlopen",
            "it loads libraries while it runs (dlopen(3)); those are not looked at",
        );
    }

    fn take(&mut self, limit: &'static Limit, function: &str, file: &Path) {
        let by = (function.to_owned(), file.to_owned());
        let known = self
            .findings
            .iter_mut()
            .find(|finding| finding.call == limit.call);
        match known {
            Some(finding) => {
                finding.by.insert(by);
            }
            None => self.findings.push(Finding {
                kind: Some(limit.kind),
                call: limit.call,
                says: limit.says.to_owned(),
                by: BTreeSet::from([by]),
            }),
        }
    }

    /// The libraries, and theirs.
    fn take_libraries(&mut self, program: &Path, links: Links) {
        let named = std::env::var("LD_LIBRARY_PATH").ok();
        let directories = Directories::new(named.as_deref());
        let mut seen = BTreeSet::new();
        let mut left = vec![(program.to_owned(), links)];
        while let Some((user, links)) = left.pop() {
            for name in &links.needed {
                if !seen.insert(name.clone()) || seen.len() > LIBRARIES_MAX {
                    continue;
                }
                let Some(path) = directories.find(name, &user, &links.search) else {
                    self.findings.push(Finding::of_program(format!(
                        "the library {name}, which {} needs, is not found; install it, or name its \
                         directory in LD_LIBRARY_PATH",
                        user.display()
                    )));
                    continue;
                };
                self.libraries += 1;
                if OF_C.iter().any(|own| name.starts_with(own)) {
                    continue;
                }
                let Ok(file) = File::open(&path) else {
                    self.notes
                        .push(format!("{}: it cannot be read", path.display()));
                    continue;
                };
                let links = elf_links::read(&file);
                if links.is_bare {
                    self.notes
                        .push(format!("{}: it says nothing of its parts", path.display()));
                }
                self.take_functions(&path, &links.imported);
                left.push((path, links));
            }
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "program": self.program.to_string_lossy(),
            "libraries": self.libraries,
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "{:<17} {}; libraries: {}\n",
            "looked at",
            printable(&self.program.to_string_lossy()),
            self.libraries
        );
        text.extend(self.findings.iter().map(Finding::to_text));
        for note in &self.notes {
            text.push_str(&format!("{:<17} {}\n", "note", printable(note)));
        }
        let runs = self.findings.iter().all(|finding| finding.kind.is_some());
        text.push_str(match self.findings.is_empty() {
            true => "Nothing was found that would not come back.\n",
            false if runs => {
                "Whether it makes these calls its run shows, and says; libdc/SYSTEM-CALLS.md has all \
                 of them.\n"
            }
            false => "As it is it does not run.\n",
        });
        text
    }
}
