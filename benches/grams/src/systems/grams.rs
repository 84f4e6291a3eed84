//! Vistagrams: each request and each response in a transaction, exactly once.

use std::net::SocketAddr;
use std::time::Duration;

use vista::{AnyRio, Kind, Options, Store};
use vistagrams::{Grams, Peer, RequestId, Settings};

use super::{Client, Server, Setup};

pub struct Side {
    grams: Grams<AnyRio>,
    peer: Option<Peer>,
    ids: Vec<RequestId>,
}

/// Neither side gives up; bare UDP does not either.
const LONG: Duration = Duration::MAX;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Side {
    fn open(system: &str, setup: &Setup, name: &str) -> Result<Side, String> {
        let kind = if setup.durable {
            Kind::Disk
        } else {
            Kind::Tmpfs
        };
        let path = setup.dir.join(name);
        let store = Store::create_on(&path, Options::default(), |image| {
            AnyRio::create_as(kind, image)
        });
        let mut settings = Settings::at(SocketAddr::new(setup.ip, 0));
        // Bare UDP sends each message as one datagram; so does this.
        settings.datagram = 9000;
        settings.key = (system == "grams-key").then_some(*b"sixteen bytes ..");
        Ok(Side {
            grams: Grams::open(store.map_err(text)?, settings).map_err(text)?,
            peer: None,
            ids: Vec::new(),
        })
    }

    pub fn server(system: &str, setup: &Setup) -> Result<Side, String> {
        Side::open(system, setup, "server")
    }

    pub fn client(system: &str, setup: &Setup, address: &str) -> Result<Side, String> {
        let mut side = Side::open(system, setup, "client")?;
        let address = address
            .parse()
            .map_err(|_| format!("{address}: not an address"))?;
        side.peer = Some(
            side.grams
                .transaction(|tx| tx.peer(address))
                .map_err(text)?,
        );
        Ok(side)
    }
}

impl Server for Side {
    fn address(&self) -> String {
        self.grams.address().to_string()
    }

    fn answer(&mut self) -> Result<(), String> {
        let answered = self.grams.transaction(|tx| {
            let Some(mut request) = tx.receive_request(LONG)? else {
                return Ok(());
            };
            let body = request.take_body();
            tx.send_response(request, &body)
        });
        answered.map_err(text)
    }
}

impl Client for Side {
    fn ask(&mut self, message: &[u8]) -> Result<(), String> {
        let peer = self.peer.expect("a client");
        let sent = self.grams.transaction(|tx| tx.send_request(peer, message));
        let awaited = self.grams.awaited(sent.map_err(text)?).map_err(text)?;
        let answer = self
            .grams
            .transaction(|tx| tx.receive_response(&awaited, LONG));
        match answer.map_err(text)? {
            Some(answer) if answer.len() == message.len() => Ok(()),
            _ => Err("no answer, or another one".into()),
        }
    }

    fn ask_several(&mut self, message: &[u8]) -> Result<usize, String> {
        let peer = self.peer.expect("a client");
        let ids = &mut self.ids;
        ids.clear();
        let sent = self.grams.transaction(|tx| {
            for _ in 0..8 {
                ids.push(tx.send_request(peer, message)?);
            }
            Ok(())
        });
        sent.map_err(text)?;
        for id in ids.iter() {
            let awaited = self.grams.awaited(*id).map_err(text)?;
            let answer = self
                .grams
                .transaction(|tx| tx.receive_response(&awaited, LONG));
            answer.map_err(text)?.ok_or("no answer")?;
        }
        Ok(8)
    }
}
