//! Examples of Vistagrams, and the soak that kills them.
//!
//!     messages locks-server|locks-client|bank|jobs-queue|jobs-worker NUMBER IMAGE RIO LISTEN
//!              [SERVER] [--trace FILE] [--drain] [--rounds N]
//!     messages merge TRACE...                          one trace of several, for `dcrun check`
//!     messages torment locks|bank|jobs DIR KILLS RIO [--trace] [--ipv6 | --netns A,B]
#![forbid(unsafe_code)]

use messages::party::Arguments;
use messages::{bank, jobs, locks, torment, trace};
use std::process::ExitCode;

const USAGE: &str = "usage: messages locks-server|locks-client|bank|jobs-queue|jobs-worker \
    NUMBER IMAGE RIO LISTEN [SERVER] [--trace FILE] [--drain] [--rounds N]\n       \
    messages merge TRACE...\n       \
    messages torment locks|bank|jobs DIR KILLS RIO [--trace] [--ipv6 | --netns A,B]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((word, files)) if word == "merge" => merge(files),
        Some((word, rest)) if word == "torment" => torment::torment(rest),
        Some((program, rest)) => parse(rest).and_then(|arguments| {
            let run = match program.as_str() {
                "locks-server" => locks::serve,
                "locks-client" => locks::ask,
                "bank" => bank::run,
                "jobs-queue" => jobs::serve,
                "jobs-worker" => jobs::ask,
                _ => return Err(USAGE.to_owned()),
            };
            run(&arguments).map_err(|error| error.to_string())
        }),
        None => Err(USAGE.to_owned()),
    };
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("messages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn merge(files: &[String]) -> Result<String, String> {
    let read = |path: &String| {
        std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))
    };
    let traces: Vec<String> = files.iter().map(read).collect::<Result<_, _>>()?;
    Ok(trace::merge(&traces).trim_end().to_owned())
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let [number, image, rio, listen, rest @ ..] = words else {
        return Err(USAGE.to_owned());
    };
    let wrong = |what: &str, word: &str| format!("{what}: {word}: not understood\n{USAGE}");
    let mut arguments = Arguments {
        number: number.parse().map_err(|_| wrong("NUMBER", number))?,
        image: image.clone(),
        rio: rio.parse()?,
        listen: listen.parse().map_err(|_| wrong("LISTEN", listen))?,
        servers: Vec::new(),
        trace: None,
        drain: false,
        rounds: 0,
    };
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--drain" => arguments.drain = true,
            "--trace" => arguments.trace = Some(rest.next().ok_or(USAGE)?.clone()),
            "--rounds" => {
                let count = rest.next().ok_or(USAGE)?;
                arguments.rounds = count.parse().map_err(|_| wrong("--rounds", count))?;
            }
            server => {
                arguments
                    .servers
                    .push(server.parse().map_err(|_| wrong("SERVER", server))?);
            }
        }
    }
    Ok(arguments)
}
