//! The command line.
#![forbid(unsafe_code)]

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mailstore::maildir::disk::Disk;
use mailstore::server::{self, Running};
use mailstore::settings::{Place, Settings};
use mailstore::{check, directory, embedded};
use tokio::signal::unix::{SignalKind, signal};

/// A small mail server: SMTP, submission, LMTP and IMAP on Maildir.
///
/// Without --settings it is a server for a try, on this machine only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The file of settings (TOML).
    #[arg(long, short, global = true, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where the server for a try keeps its mail.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "settings")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve; the same as no command.
    Serve,
    /// Look at settings and store, and say what is wrong.
    Check,
    /// Read a password, print its hash for the settings.
    Password,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Password) => password(),
        Some(Command::Check) => load(&arguments).and_then(|settings| report(&settings)),
        Some(Command::Serve) | None => load(&arguments).and_then(serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            for line in problem.lines() {
                eprintln!("mailstore: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: &Arguments) -> Result<Settings, String> {
    if let Some(path) = &arguments.settings {
        return Settings::load(path).map_err(|problems| problems.join("\n"));
    }
    let data = match &arguments.data {
        Some(data) => {
            std::path::absolute(data).map_err(|cause| format!("{}: {cause}", data.display()))?
        }
        None => embedded::data_directory()?,
    };
    let settings = embedded::settings(&data, &Disk::default())?;
    if !matches!(arguments.command, Some(Command::Check)) {
        say_what_for(&data);
    }
    Ok(settings)
}

fn say_what_for(data: &Path) {
    println!("A server for a try, on this machine only; --settings FILE makes it a real one.");
    println!("Its mail lies in {}.", data.display());
    println!(
        "Account {}, password {}.",
        embedded::ACCOUNT,
        embedded::PASSWORD
    );
}

/// `MAILSTORE_SYNC=no`: a power cut may take what was acknowledged. For a replay, or a try.
fn disk() -> Disk {
    match std::env::var("MAILSTORE_SYNC").as_deref() {
        Ok("no") => {
            eprintln!("mailstore: nothing is synced, as MAILSTORE_SYNC=no says");
            Disk::relaxed()
        }
        _ => Disk::default(),
    }
}

fn serve(settings: Settings) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| format!("cannot start threads: {cause}"))?;
    runtime.block_on(async {
        let fail = |cause: std::io::Error| format!("cannot wait for signals: {cause}");
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let running = server::start(settings, disk()).await?;
        say_where(&running);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        running.stop().await;
        Ok(())
    })
}

fn say_where(running: &Running) {
    for (service, place) in &running.places {
        match place {
            Place::Tcp(address) => println!("{:<12} {address}", service.name()),
            Place::Unix(path) => println!("{:<12} {}", service.name(), path.display()),
        }
    }
    let _ = std::io::stdout().flush();
}

fn report(settings: &Settings) -> Result<(), String> {
    let report = check::check(settings);
    println!(
        "{} accounts with mail, {} mailboxes, {} messages, {} in the queue",
        report.accounts, report.mailboxes, report.messages, report.queued
    );
    if report.problems.is_empty() {
        Ok(())
    } else {
        Err(report.problems.join("\n"))
    }
}

fn password() -> Result<(), String> {
    if std::io::stdin().is_terminal() {
        eprint!("Password: ");
    }
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|cause| format!("cannot read a password: {cause}"))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("the password is empty".into());
    }
    println!("{}", directory::hash_password(password)?);
    Ok(())
}
