//! `mail-load`: the work that a number of users give to a mail server in the busiest hour of a day,
//! or any other share of it, by SMTP (or LMTP) and IMAP.
//!
//! Who does what and when is drawn beforehand ([`plan`]), so that a slow server does not get less
//! to do; sessions are timed from their first to their last octet ([`session`]).
#![forbid(unsafe_code)]

mod plan;
mod session;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use plan::{Event, Plan};

/// Users at work: each day 4 mails received (2 of them sent by others of the users) and 4 looks
/// into the INBOX, of which 3 find nothing new and 1 fetches and removes all.
#[derive(Parser)]
#[command(name = "mail-load", version)]
struct Arguments {
    /// HOST:PORT where mail is taken.
    #[arg(long)]
    smtp: String,
    /// It speaks LMTP.
    #[arg(long)]
    lmtp: bool,
    /// HOST:PORT of the IMAP server.
    #[arg(long)]
    imap: String,
    #[arg(long, default_value_t = 100)]
    users: u32,
    /// The name of user number n, from 0, has n for {}.
    #[arg(long, default_value = "u{}")]
    name: String,
    #[arg(long, default_value = "here.test")]
    domain: String,
    /// The password of all users.
    #[arg(long, default_value = "secret")]
    password: String,
    /// How long the work lasts for the users.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// So many times faster than for the users.
    #[arg(long, default_value_t = 1.0)]
    faster: f64,
    /// The per cent of a day's work that an hour has: the busiest one 15, the mean one 4.17.
    #[arg(long, default_value_t = 15.0)]
    hour: f64,
    /// Sessions at once, at most.
    #[arg(long, default_value_t = 64)]
    sessions: usize,
    /// Another seed draws other work.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print all times of sessions, in JSON.
    #[arg(long)]
    json: bool,
}

/// What came of an event.
struct Done {
    event: Event,
    ms: f64,
    late_ms: f64,
    failure: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = Plan::new(
        arguments.users,
        arguments.minutes,
        arguments.hour,
        arguments.seed,
    );
    let done = play(&arguments, &plan);
    match arguments.json {
        true => println!("{}", json(&done)),
        false => print!("{}", words(&done)),
    }
    match done.iter().any(|d| d.failure.is_some()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn play(arguments: &Arguments, plan: &Plan) -> Vec<Done> {
    let began = Instant::now();
    let next = Mutex::new(plan.events.iter());
    let done = Mutex::new(Vec::with_capacity(plan.events.len()));
    let take = || next.lock().map_or(None, |mut next| next.next());
    std::thread::scope(|scope| {
        for _ in 0..arguments.sessions.clamp(1, plan.events.len().max(1)) {
            scope.spawn(|| {
                while let Some(event) = take() {
                    let due = Duration::from_secs_f64(event.at_s / arguments.faster);
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                    let late_ms = began.elapsed().saturating_sub(due).as_secs_f64() * 1e3;
                    let started = Instant::now();
                    let failure = run(arguments, event).err().map(|e| e.to_string());
                    let ms = started.elapsed().as_secs_f64() * 1e3;
                    if let Ok(mut done) = done.lock() {
                        done.push(Done {
                            event: event.clone(),
                            ms,
                            late_ms,
                            failure,
                        });
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

fn run(arguments: &Arguments, event: &Event) -> std::io::Result<()> {
    let name = |n: u32| arguments.name.replace("{}", &n.to_string());
    let domain = &arguments.domain;
    match &event.what {
        plan::What::Mail { from, to, bytes } => {
            let from = from.map_or("someone@elsewhere.test".into(), |n| {
                format!("{}@{domain}", name(n))
            });
            let to = format!("{}@{domain}", name(*to));
            session::mail(&arguments.smtp, arguments.lmtp, &from, &to, *bytes)
        }
        plan::What::Look { user, fetches } => {
            session::look(&arguments.imap, &name(*user), &arguments.password, *fetches)
        }
    }
}

fn kind(event: &Event) -> &'static str {
    match event.what {
        plan::What::Mail { .. } => "mail",
        plan::What::Look { fetches: true, .. } => "fetch",
        plan::What::Look { fetches: false, .. } => "look",
    }
}

const KINDS: [&str; 3] = ["mail", "look", "fetch"];

fn sorted<'a>(done: &'a [Done], of: &str, value: impl Fn(&'a Done) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = done
        .iter()
        .filter(|d| kind(&d.event) == of)
        .map(value)
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

fn json(done: &[Done]) -> serde_json::Value {
    let mut all = serde_json::Map::new();
    for of in KINDS {
        all.insert(of.into(), sorted(done, of, |d| d.ms).into());
    }
    let failures: Vec<&String> = done.iter().filter_map(|d| d.failure.as_ref()).collect();
    all.insert("failures".into(), failures.into_iter().cloned().collect());
    serde_json::Value::Object(all)
}

fn words(done: &[Done]) -> String {
    let mut text = String::new();
    for of in KINDS {
        let ms = sorted(done, of, |d| d.ms);
        let late = sorted(done, of, |d| d.late_ms);
        let at = |values: &[f64], share: f64| {
            let last = values.len().saturating_sub(1);
            let place = (last as f64 * share).round() as usize;
            values.get(place).copied().unwrap_or(0.0)
        };
        text += &format!(
            "{of:<6} {:6} sessions, ms: median {:.2}, 95 % {:.2}, longest {:.2}; begun late by {:.1} at most\n",
            ms.len(),
            at(&ms, 0.5),
            at(&ms, 0.95),
            at(&ms, 1.0),
            at(&late, 1.0),
        );
    }
    let failures: Vec<&String> = done.iter().filter_map(|d| d.failure.as_ref()).collect();
    text += &format!("{} failures\n", failures.len());
    for failure in failures.iter().take(5) {
        text += &format!("  {failure}\n");
    }
    text
}
