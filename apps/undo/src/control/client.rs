//! The operator's end of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::Request;
use crate::{Context, Error, Result};

/// A connection to a manager.
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the manager of the folder `home`.
    pub fn connect(home: &Path) -> Result<Client> {
        let path = home.join("control");
        let stream = UnixStream::connect(&path).map_err(|cause| {
            Error::new(path.display(), "connect to the undo manager", cause).advise(
                "start the service with its proxy, or name its folder with --home or UNDO_HOME",
            )
        })?;
        Ok(Client {
            reader: BufReader::new(stream),
        })
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &Request) -> Result<Value> {
        let line = serde_json::to_string(request).context("request", "encode")?;
        writeln!(self.reader.get_mut(), "{line}").context("undo manager", "send a request")?;
        let mut answer = String::new();
        self.reader
            .read_line(&mut answer)
            .context("undo manager", "read its answer")?;
        let lost = || {
            Error::new(
                "undo manager",
                "read its answer",
                "it has closed the connection",
            )
            .advise("see whether it is running; what was under way goes on when it starts again")
        };
        let answer: Value = serde_json::from_str(&answer).map_err(|_| lost())?;
        match (
            answer.get("ok"),
            answer.get("error").and_then(Value::as_str),
        ) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(error)) => Err(Error::told(error)),
            (None, None) => Err(lost()),
        }
    }
}
