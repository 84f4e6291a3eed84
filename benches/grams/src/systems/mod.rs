//! The systems under test, each as a server that echoes and a client that asks.

pub mod grams;
pub mod udp;

use std::net::IpAddr;
use std::path::Path;

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
        _ => return Err(format!("{system}: no such system")),
    })
}

pub fn client(system: &str, setup: &Setup, address: &str) -> Result<Box<dyn Client>, String> {
    Ok(match system {
        "udp" => Box::new(udp::Udp::client(setup, address)?),
        "grams" | "grams-key" | "grams-disk" => {
            Box::new(grams::Side::client(system, setup, address)?)
        }
        _ => return Err(format!("{system}: no such system")),
    })
}
