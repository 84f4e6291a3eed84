//! The two processes of a system: one answers, the other asks and measures.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::systems::{self, Setup};

fn setup(words: &[String]) -> Result<(&str, Setup<'_>), String> {
    let [system, dir, how, ip, ..] = words else {
        return Err("side: too few words".into());
    };
    let setup = Setup {
        dir: Path::new(dir),
        durable: how == "durable",
        ip: ip.parse().map_err(|_| format!("{ip}: not an address"))?,
    };
    Ok((system, setup))
}

/// `server SYSTEM DIR HOW IP`: says its address, then answers until it is killed.
pub fn server(words: &[String]) -> Result<(), String> {
    let (system, setup) = setup(words)?;
    let mut server = systems::server(system, &setup)?;
    println!("{}", server.address());
    stdout().flush().map_err(|error| error.to_string())?;
    loop {
        server.answer()?;
    }
}

/// `client SYSTEM DIR HOW IP ADDRESS SIZE`: for each number of milliseconds that it reads, the
/// median of a round trip in nanoseconds and round trips a second with several under way.
pub fn client(words: &[String]) -> Result<(), String> {
    let (system, setup) = setup(words)?;
    let [_, _, _, _, address, size] = words else {
        return Err("client: say ADDRESS and SIZE".into());
    };
    let size = size.parse().map_err(|_| format!("{size}: not a size"))?;
    let mut client = systems::client(system, &setup, address)?;
    let message: Vec<u8> = (0..size).map(|index: usize| index as u8).collect();
    for _ in 0..20 {
        client.ask(&message)?;
    }
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let ms = line.parse().map_err(|_| format!("not a number: {line}"))?;
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(ms) || times.is_empty() {
            let asked = Instant::now();
            client.ask(&message)?;
            times.push(asked.elapsed().as_nanos() as f64);
        }
        times.sort_by(f64::total_cmp);
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < Duration::from_millis(ms / 2) || count == 0 {
            count += client.ask_several(&message)?;
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        println!("{} {rate}", times[times.len() / 2]);
        stdout().flush().map_err(|error| error.to_string())?;
    }
    Ok(())
}
