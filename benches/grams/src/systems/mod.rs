//! The systems under test, each as a server that echoes and a client that asks.

pub mod grams;
#[allow(unsafe_code, non_snake_case)]
pub mod postgres;
pub mod redis;
#[allow(unsafe_code)]
pub mod sqlite;
pub mod udp;

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where a side keeps its data, whether that must survive the machine, and where it listens.
pub struct Setup<'a> {
    pub dir: &'a Path,
    pub durable: bool,
    pub ip: IpAddr,
}

pub trait Server {
    /// How its client reaches it.
    fn address(&self) -> String;
    /// Waits for a request and answers it, or gives up waiting.
    fn answer(&mut self) -> Result<(), String>;
}

pub trait Client {
    /// Sends a request and waits for its response.
    fn ask(&mut self, message: &[u8]) -> Result<(), String>;

    /// Several at once, if the system can; how many.
    fn ask_several(&mut self, message: &[u8]) -> Result<usize, String> {
        self.ask(message)?;
        Ok(1)
    }
}

pub fn server(system: &str, setup: &Setup) -> Result<Box<dyn Server>, String> {
    Ok(match system {
        "udp" => Box::new(udp::Udp::server(setup)?),
        "grams" | "grams-key" | "grams-disk" => Box::new(grams::Side::server(system, setup)?),
        "sqlite" => Box::new(sqlite::Queue::open(setup, true)?),
        "postgres" => Box::new(postgres::Queue::server(setup)?),
        "redis" => Box::new(redis::Streams::server(setup)?),
        _ => return Err(format!("{system}: no such system")),
    })
}

/// A database that a server process has started goes when that is killed.
#[allow(unsafe_code)]
fn dies_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only this one call is made, which allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
}

pub fn client(system: &str, setup: &Setup, address: &str) -> Result<Box<dyn Client>, String> {
    Ok(match system {
        "udp" => Box::new(udp::Udp::client(setup, address)?),
        "grams" | "grams-key" | "grams-disk" => {
            Box::new(grams::Side::client(system, setup, address)?)
        }
        "sqlite" => Box::new(sqlite::Queue::open(setup, false)?),
        "postgres" => Box::new(postgres::Queue::client(address)?),
        "redis" => Box::new(redis::Streams::client(address)?),
        _ => return Err(format!("{system}: no such system")),
    })
}
