//! Measures mail servers beside each other, round by round, in one run.
//!
//! A server is given as NAME,SMTP,LMTP,IMAP,USER,PASSWORD with HOST:PORT each, `-`
//! for what it has not. `scripts/bench-mail` sets up mailstore beside Dovecot and
//! Postfix and calls this. Each measure is taken of each server in turn, so that
//! a slow moment of the machine meets all; what is told is the middle of the rounds.

#![forbid(unsafe_code)]

mod client;
mod measure;

use std::process::ExitCode;

use clap::Parser;
use measure::{MEASURES, Server};

#[derive(Parser)]
struct Arguments {
    /// NAME,SMTP,LMTP,IMAP,USER,PASSWORD; several of them, the one to compare with last.
    #[arg(required = true)]
    servers: Vec<String>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages in each round.
    #[arg(long, default_value_t = 400)]
    messages: usize,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Only measures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let servers: Result<Vec<Server>, String> = arguments
        .servers
        .iter()
        .map(|text| Server::parse(text))
        .collect();
    match servers.and_then(|servers| run(&arguments, &servers)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench-mail: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, servers: &[Server]) -> Result<(), String> {
    println!(
        "{} rounds, {} messages of 4 KB a round, {} connections; per second, middle (least .. most)",
        arguments.rounds, arguments.messages, arguments.connections
    );
    for (name, measure) in MEASURES
        .iter()
        .filter(|(name, _)| name.contains(&arguments.only))
    {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); servers.len()];
        for round in 0..arguments.rounds {
            // Who comes first changes, so that nobody always finds warm caches.
            for turn in 0..servers.len() {
                let at = (turn + round) % servers.len();
                let server = &servers[at];
                let rate = measure(server, arguments.messages, arguments.connections)
                    .map_err(|problem| format!("{}: {name}: {problem}", server.name))?;
                rates[at].extend(rate);
            }
        }
        let mut line = format!("{name:<34}");
        let middles: Vec<Option<f64>> = rates.iter_mut().map(|rates| middle(rates)).collect();
        for (server, (rates, middle)) in servers.iter().zip(rates.iter().zip(&middles)) {
            match middle {
                None => line.push_str(&format!("  {} -", server.name)),
                Some(middle) => line.push_str(&format!(
                    "  {} {middle:.0} ({:.0} .. {:.0})",
                    server.name,
                    rates[0],
                    rates[rates.len() - 1]
                )),
            }
        }
        if let [Some(first), .., Some(last)] = middles.as_slice() {
            line.push_str(&format!("  {:.2}x", first / last));
        }
        println!("{line}");
    }
    Ok(())
}

/// Sorts, and gives the middle one.
fn middle(rates: &mut [f64]) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}
