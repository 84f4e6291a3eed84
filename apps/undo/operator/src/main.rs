//! `undo`: what an operator types to take a service back, repair it, and bring it forward again.
//!
//! It knows no service: it talks to the undo manager in the service's folder over `HOME/control`.
#![forbid(unsafe_code)]

mod edit;
mod show;
mod wait;
mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use undo::control::{Client, Request};
use undo::manager::Search;
use undo::{Error, Result};

/// Rewind, repair and replay a service.
#[derive(Parser)]
#[command(name = "undo", version)]
struct Command {
    /// The folder of the service's undo manager.
    #[arg(long, env = "UNDO_HOME", global = true, default_value = ".")]
    home: PathBuf,
    /// Print JSON instead of words.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say in which phase the service is, and what can be undone.
    Status,
    /// List the verbs of the timeline.
    Timeline(Find),
    /// Print one verb with all that it is made of.
    Show { lsn: u64 },
    /// List the snapshots.
    Snapshots,
    /// Take a snapshot now.
    Snapshot,
    /// Take the service back to a point of time, and stop there for repairs.
    Rewind {
        /// An LSN, a time like 2026-11-29T12:30:00Z, or how long ago, like -10m.
        #[arg(long, allow_hyphen_values = true)]
        to: String,
        /// Only this part of the service: for mail, a user, or one folder as USER/FOLDER.
        #[arg(long)]
        only: Option<String>,
    },
    /// Open a shell in the live state of a service that was rewound.
    Repair,
    /// Bring the service forward through all that its users did since.
    Replay {
        /// Only list the paradoxes to come; the state stays as it is.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give the cycle up: back to the state before the rewind.
    Cancel,
    /// Undo the last cycle that has ended.
    Undo,
    /// Declare the cycles that have ended final.
    Commit,
    /// Change history, before it is replayed.
    Edit {
        #[command(subcommand)]
        edit: edit::Edit,
    },
    /// Serve the web page of the operator.
    Web {
        #[arg(long, default_value = "127.0.0.1:8025")]
        listen: String,
        /// A file whose first line is the password of the page. It must not be readable by others.
        #[arg(long)]
        password_file: PathBuf,
    },
}

/// What to look for; text is found in any part of a field, in any case.
#[derive(Args)]
struct Find {
    #[arg(long, default_value = "")]
    kind: String,
    #[arg(long, default_value = "")]
    user: String,
    #[arg(long, default_value = "")]
    folder: String,
    #[arg(long, default_value = "")]
    sender: String,
    #[arg(long, default_value = "")]
    subject: String,
    /// From this point on: an LSN, a time, or how long ago.
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to this point.
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// At most so many, the newest; 0 for all.
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

fn main() -> ExitCode {
    let command = Command::parse();
    match act(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if command.json => {
            println!("{}", serde_json::json!({ "error": error.to_string() }));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("undo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: &Command) -> Result<()> {
    let home = &command.home;
    let ask = |request: Request| Client::connect(home)?.ask(&request);
    let print = |value: &Value, words: fn(&Value) -> String| {
        match command.json {
            true => println!("{value}"),
            false => print!("{}", words(value)),
        }
        Ok(())
    };
    match &command.action {
        Action::Status => print(&ask(Request::Status)?, show::status),
        Action::Timeline(find) => {
            let search = find.search(home)?;
            print(&ask(Request::Timeline { search })?, show::timeline)
        }
        Action::Show { lsn } => print(&ask(Request::Show { lsn: *lsn })?, show::pretty),
        Action::Snapshots => print(&ask(Request::Snapshots)?, show::snapshots),
        Action::Snapshot => print(&ask(Request::Snapshot)?, show::snapshot),
        Action::Rewind { to, only } => {
            let request = Request::Rewind {
                to: to.clone(),
                scope: only.clone(),
            };
            print(
                &wait::with_progress(home, request, command.json)?,
                show::rewound,
            )
        }
        Action::Repair => repair(home),
        Action::Replay { dry_run } => {
            let words = if *dry_run {
                show::rehearsed
            } else {
                show::replayed
            };
            let request = Request::Replay { dry_run: *dry_run };
            print(&wait::with_progress(home, request, command.json)?, words)
        }
        Action::Cancel => {
            let answer = wait::with_progress(home, Request::Cancel, command.json)?;
            print(&answer, |_| {
                "The service is what it was before the rewind.\n".into()
            })
        }
        Action::Undo => print(
            &wait::with_progress(home, Request::Undo, command.json)?,
            show::replayed,
        ),
        Action::Commit => print(&ask(Request::Commit)?, |n| {
            format!("{n} cycles are final now.\n")
        }),
        Action::Edit { edit } => print(&edit::edit(home, edit)?, show::pretty),
        Action::Web {
            listen,
            password_file,
        } => web::serve(home, listen, password_file),
    }
}

impl Find {
    fn search(&self, home: &Path) -> Result<Search> {
        let point = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match undo::when::parse(text, undo::when::now_us())? {
                undo::when::When::Lsn(lsn) => Ok(Some(lsn)),
                undo::when::When::Time(us) => lsn_at(home, us).map(Some),
            },
        };
        Ok(Search {
            kind: self.kind.clone(),
            user: self.user.clone(),
            folder: self.folder.clone(),
            sender: self.sender.clone(),
            subject: self.subject.clone(),
            from: point(&self.from)?,
            to: point(&self.to)?,
            limit: self.limit,
        })
    }
}

fn lsn_at(home: &Path, us: u64) -> Result<u64> {
    let answer = Client::connect(home)?.ask(&Request::At { time_us: us })?;
    Ok(answer.as_u64().unwrap_or(0))
}

/// A shell in the live state. The manager goes on whatever it does.
fn repair(home: &Path) -> Result<()> {
    let mut client = Client::connect(home)?;
    let status = client.ask(&Request::Status)?;
    if status["phase"] != "repairing" {
        return Err(Error::new(
            "service",
            "repair",
            format!("it is {}", status["phase"].as_str().unwrap_or("?")),
        )
        .advise("begin with `undo rewind`"));
    }
    let live = client.ask(&Request::Place)?["live"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    println!(
        "The service is at LSN {}. This shell is in its state, {live}.",
        status["cycle"]["target"]
    );
    println!(
        "Repair what you like, here and elsewhere; then exit, and `undo replay` or `undo cancel`."
    );
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    let ended = std::process::Command::new(&shell)
        .current_dir(&live)
        .env(
            "UNDO_HOME",
            std::path::absolute(home).unwrap_or_else(|_| home.to_owned()),
        )
        .env("UNDO_LIVE", &live)
        .status();
    match ended {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Error::new(shell, "start", error).advise("set SHELL to a shell that exists"))
        }
    }
}
