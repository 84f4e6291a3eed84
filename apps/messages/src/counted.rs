//! Requests that carry the number of their client and their own, so that a server sees at once
//! whether one is lost or comes twice: a client of these examples has one under way at a time.

use std::fmt;

use vista::persistent;
use vistagrams::Error;

const CLIENTS: usize = 16;

persistent! {
    /// How many requests of each client were executed.
    pub struct Counted { requests: [u64; CLIENTS] }
}

impl Counted {
    pub fn body(client: u32, number: u64, what: &[u8]) -> Vec<u8> {
        let mut bytes = client.to_le_bytes().to_vec();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(what);
        bytes
    }

    /// # Errors
    /// The request was executed before, or one before it was not.
    pub fn count(&mut self, client: u32, number: u64) -> Result<(), Error> {
        let executed = &mut self.requests[client as usize % CLIENTS];
        if number != *executed + 1 {
            return Err(Error::Settings(format!(
                "EXACTLY ONCE IS BROKEN: request {number} of client {client} comes after {executed}"
            )));
        }
        *executed = number;
        Ok(())
    }

    pub fn of(&self, client: u32) -> u64 {
        self.requests[client as usize % CLIENTS]
    }
}

/// Client, number and the rest of a request.
pub fn in_order(body: &[u8]) -> Result<(u32, u64, &[u8]), Error> {
    let parts = body.split_first_chunk::<4>().and_then(|(client, rest)| {
        let (number, what) = rest.split_first_chunk::<8>()?;
        (what.len() >= 2).then(|| {
            (
                u32::from_le_bytes(*client),
                u64::from_le_bytes(*number),
                what,
            )
        })
    });
    parts.ok_or_else(|| Error::Settings("request: too short for a number and a verb".into()))
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requests.iter().map(u64::to_string).collect();
        f.write_str(&texts.join(","))
    }
}
