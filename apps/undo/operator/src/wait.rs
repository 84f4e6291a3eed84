//! Commands that take long: a line that tells how far they are, until their answer comes.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use undo::control::{Client, Request};
use undo::{Error, Result};

use crate::show;

/// Sends a request. Meanwhile a terminal sees a bar with the time that is left.
pub fn with_progress(home: &Path, request: Request, quiet: bool) -> Result<Value> {
    let mut client = Client::connect(home)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(client.ask(&request));
    });
    let shows = !quiet && std::io::stderr().is_terminal();
    loop {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(answer) => {
                if shows {
                    eprint!("\r\x1b[K");
                }
                return answer;
            }
            Err(mpsc::RecvTimeoutError::Timeout) if shows => {
                if let Ok(status) = Client::connect(home).and_then(|mut c| c.ask(&Request::Status))
                {
                    eprint!("\r\x1b[K{}", show::bar(&status["progress"]));
                    let _ = std::io::stderr().flush();
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::new(
                    "undo manager",
                    "read its answer",
                    "the connection has ended",
                ));
            }
        }
    }
}
