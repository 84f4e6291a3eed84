//! The command line, as users and scripts may rely on it.
//!
//! `run` is the default command: `dcrun vim a` is `dcrun run vim a`. Options of
//! dcrun end at the program's name, so that the program's own options need no
//! `--`; [`with_defaults_spelled_out`] writes both into the arguments before clap sees
//! them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::chosen::Chosen;
use crate::message::{self, OWN_FAULT};

#[derive(Parser, Debug)]
#[command(
    name = "dcrun",
    version,
    override_usage = "dcrun [run] [OPTIONS] [--] PROGRAM [ARGS...]\n       dcrun COMMAND",
    about = "Runs unmodified Linux programs so that they survive kill -9",
    after_help = "`dcrun PROGRAM [ARGS...]` is short for `dcrun run PROGRAM [ARGS...]`.\n\
        Exit status: the program's own; 125 dcrun's own fault, 126 not executable,\n\
        127 not found, 128+N ended by signal N."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a program, or resume its unfinished run
    #[command(override_usage = "dcrun [run] [OPTIONS] [--] PROGRAM [ARGS...]")]
    Run(RunOptions),
    /// List the runs of this user
    Ps {
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Go on with a run from its last commit
    #[command(override_usage = "dcrun resume [OPTIONS] NAME\n       dcrun resume [OPTIONS] --all")]
    Resume(ResumeOptions),
    /// Stop runs so that they can go on later, after a restart of the machine too
    #[command(override_usage = "dcrun suspend NAME...\n       dcrun suspend --all")]
    Suspend {
        /// All runs of this user that are alive
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[arg(required_unless_present = "all", value_name = "NAME")]
        names: Vec<String>,
    },
    /// The systemd unit that suspends all runs at a shutdown and resumes them at the next start
    Service {
        #[command(subcommand)]
        action: ServiceAction,
    },
    /// End worker and keeper of a run; it stays resumable
    Kill { name: String },
    /// Remove a run that is not alive, and its image
    Rm {
        name: String,
        /// Do not ask, whatever it holds
        #[arg(long)]
        force: bool,
    },
    /// Show the counters of a run
    Stats {
        name: String,
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check a trace against the theory of consistent recovery
    Check { trace: PathBuf },
    /// Read all of the image of a run that is not alive: is it what the last commit left?
    CheckImage { name: String },
    /// Say what this machine offers and what is missing; of a program, what of it may not come back
    #[command(override_usage = "dcrun doctor [--json] [PROGRAM [ARGS...]]")]
    Doctor {
        /// As a JSON object
        #[arg(long)]
        json: bool,
        /// A program that is not run, but looked at with its libraries
        #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
        command: Vec<OsString>,
    },
}

#[derive(Args, Debug)]
pub struct RunOptions {
    /// When to commit; cbndvs if not given. auto moves to what costs least
    #[arg(long, value_parser = Chosen::parser())]
    pub protocol: Option<Chosen>,
    /// Where commits go: tmpfs (if not given), disk or pmem, each with an optional :PATH
    #[arg(long, value_name = "KIND[:PATH]", value_parser = parse_rio)]
    pub rio: Option<Rio>,
    /// Commit by the clock as well
    #[arg(long, value_name = "MS")]
    pub interval: Option<u64>,
    /// Whom a SIGTERM from outside is for: the program, or dcrun, which suspends the run
    #[arg(long, value_name = "WHOM", value_enum)]
    pub on_term: Option<ForWhom>,
    /// The same of SIGHUP, as when the terminal is closed
    #[arg(long, value_name = "WHOM", value_enum)]
    pub on_hup: Option<ForWhom>,
    /// Name of the run
    #[arg(long, value_parser = parse_name)]
    pub name: Option<String>,
    /// Discard an unfinished run of this name instead of resuming it
    #[arg(long)]
    pub fresh: bool,
    /// The computation that runs commit together; refused, for there are none yet
    #[arg(long, value_parser = parse_name)]
    pub group: Option<String>,
    /// Append every event and commit to this file, as text
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Say so at every recovery
    #[arg(short, long)]
    pub verbose: bool,
    /// The program and its arguments
    #[arg(required = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

#[derive(Subcommand, Clone, Copy, Debug)]
pub enum ServiceAction {
    /// Write the unit into the directory of this user's units
    Install {
        /// Also over another file of its name
        #[arg(long)]
        force: bool,
    },
    /// Remove it from there
    Uninstall,
    /// Print it
    Show,
}

#[derive(Args, Debug)]
pub struct ResumeOptions {
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<String>,
    /// All runs that are suspended or were interrupted, in the background
    #[arg(long)]
    pub all: bool,
    /// In the background; what has no name to come back by is read from /dev/null, and written
    /// to the file `output` in the run's directory
    #[arg(short, long)]
    pub detach: bool,
    /// This process is the keeper in the background
    #[arg(long, hide = true)]
    pub background: bool,
    /// Where others have changed a file since the run's last commit: leave `theirs`, or
    /// undo `ours` all the same. Without it the run stops there and says where
    #[arg(long, value_name = "WHOSE", value_parser = ["theirs", "ours"])]
    pub keep: Option<String>,
    /// Append every event and commit to this file, as text
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Say so at every recovery
    #[arg(short, long)]
    pub verbose: bool,
}

/// What a signal that somebody sends means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ForWhom {
    /// It is the program's, as without dcrun
    Program,
    /// The run is suspended, and the program does not see it
    Suspend,
}

impl RunOptions {
    /// What is said of signals, over what was said before.
    pub fn suspend_on(&self, before: u64) -> u64 {
        let said = [(self.on_term, libc::SIGTERM), (self.on_hup, libc::SIGHUP)];
        said.iter().fold(before, |mask, (whom, signal)| {
            let bit = 1 << (signal - 1);
            match whom {
                None => mask,
                Some(ForWhom::Program) => mask & !bit,
                Some(ForWhom::Suspend) => mask | bit,
            }
        })
    }
}

/// Where the image of a run lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rio {
    pub kind: RioKind,
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RioKind {
    Tmpfs,
    Disk,
    Pmem,
}

impl RioKind {
    pub fn name(self) -> &'static str {
        match self {
            RioKind::Tmpfs => "tmpfs",
            RioKind::Disk => "disk",
            RioKind::Pmem => "pmem",
        }
    }
}

impl std::fmt::Display for Rio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            None => f.write_str(self.kind.name()),
            Some(path) => write!(f, "{}:{}", self.kind.name(), path.display()),
        }
    }
}

/// What clap wants shown instead of a command: help, version, or an error.
pub struct Shown(clap::Error);

impl Shown {
    /// Shows it; returns the exit status.
    pub fn show(&self) -> u8 {
        if self.0.use_stderr() {
            let text = self.0.render().to_string();
            message::say_lines(text.trim_start_matches("error: ").trim_end());
            OWN_FAULT
        } else {
            let _ = self.0.print();
            0
        }
    }
}

pub fn parse(arguments: Vec<OsString>) -> Result<Command, Shown> {
    let arguments = with_defaults_spelled_out(arguments);
    CommandLine::try_parse_from(&arguments)
        .map(|line| line.command)
        .map_err(|error| {
            // The error quotes arguments: the same one again, of what can be shown.
            let shown = arguments
                .iter()
                .map(|word| message::printable(&word.to_string_lossy()));
            Shown(CommandLine::try_parse_from(shown).err().unwrap_or(error))
        })
}

pub fn parse_rio(text: &str) -> Result<Rio, String> {
    let (kind, path) = match text.split_once(':') {
        Some((_, "")) => return Err("the path after the colon is empty".to_owned()),
        Some((kind, path)) => (kind, Some(PathBuf::from(path))),
        None => (text, None),
    };
    let kind = match kind {
        "tmpfs" => RioKind::Tmpfs,
        "disk" => RioKind::Disk,
        "pmem" => RioKind::Pmem,
        _ => return Err("it is none of tmpfs, disk, pmem".to_owned()),
    };
    Ok(Rio { kind, path })
}

/// Names become file names, so they hold nothing that means something in a path.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+@-".contains(c);
    if text.is_empty() || text.len() > 120 {
        Err("a name has 1 to 120 characters".to_owned())
    } else if text.starts_with(['.', '-']) || !text.chars().all(fits) {
        Err("a name holds letters, digits and . _ + @ -, and begins with none of . -".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Inserts `run` where it is left out, and `--` before the program.
fn with_defaults_spelled_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let root = CommandLine::command();
    let is_command = |word: &OsStr| {
        word.to_str().is_some_and(|word| {
            ["help", "-h", "--help", "-V", "--version"].contains(&word)
                || root.find_subcommand(word).is_some()
        })
    };
    match arguments.get(1) {
        None => return arguments,
        Some(first) if is_command(first) => {}
        Some(_) => arguments.insert(1, "run".into()),
    }
    if arguments[1] != "run" {
        return arguments;
    }
    let run = root.find_subcommand("run").expect("it is declared above");
    let takes_value = |word: &str| {
        run.get_arguments().any(|option| {
            option.get_action().takes_values()
                && word
                    .strip_prefix("--")
                    .is_some_and(|long| option.get_long() == Some(long))
        })
    };
    let mut at = 2;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        if word == "--" {
            return arguments;
        }
        if !word.starts_with('-') || word == "-" {
            break;
        }
        at += if takes_value(word) { 2 } else { 1 };
    }
    if at < arguments.len() {
        arguments.insert(at, "--".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> RunOptions {
        let words = line.split(' ').map(OsString::from).collect();
        match parse(words) {
            Ok(Command::Run(options)) => options,
            Ok(other) => panic!("{line}: {other:?}"),
            Err(Shown(error)) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn run_is_the_default() {
        assert_eq!(run("dcrun vim a").command, ["vim", "a"]);
        assert_eq!(run("dcrun run vim a").command, ["vim", "a"]);
        assert_eq!(run("dcrun -- ps --json").command, ["ps", "--json"]);
        assert_eq!(run("dcrun run ps").command, ["ps"]);
    }

    #[test]
    fn options_end_at_the_program() {
        let options = run("dcrun --protocol cand --name x -v ./app --name y -v -- z");
        assert_eq!(options.protocol, Chosen::from_name("cand"));
        assert_eq!(options.name.as_deref(), Some("x"));
        assert!(options.verbose);
        assert_eq!(options.command, ["./app", "--name", "y", "-v", "--", "z"]);
        assert_eq!(run("dcrun --interval=10 -- app -x").interval, Some(10));
    }

    #[test]
    fn mistakes_are_not_programs() {
        let bad = |line: &str| parse(line.split(' ').map(OsString::from).collect()).is_err();
        assert!(bad("dcrun --protcol cand app"));
        assert!(bad("dcrun --protocol none app"));
        assert!(bad("dcrun --fresh"));
        assert!(bad("dcrun --name ../x app"));
    }

    #[test]
    fn protocols_have_the_documented_names() {
        for name in [
            "cpvs",
            "cand",
            "cbndvs",
            "cand-log",
            "cbndvs-log",
            "cpv-2pc",
            "cbndv-2pc",
            "auto",
        ] {
            let options = run(&format!("dcrun --protocol {name} app"));
            assert_eq!(options.protocol.map(Chosen::name), Some(name));
        }
    }

    #[test]
    fn rio_reads_as_it_prints() {
        for text in ["tmpfs", "disk", "pmem:/mnt/pmem0", "disk:/a:b"] {
            assert_eq!(parse_rio(text).unwrap().to_string(), text);
        }
        assert!(parse_rio("ram").is_err());
        assert!(parse_rio("disk:").is_err());
    }
}
