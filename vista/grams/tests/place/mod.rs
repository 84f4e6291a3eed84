//! Stores for tests on real sockets, and a request's way there and back.
#![allow(dead_code)] // Each test uses some of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vista::{Backend, Options, Store, Tmpfs};
use vistagrams::{Grams, RequestId, Settings};

pub const LONG: Duration = Duration::from_secs(20);
pub const SHORT: Duration = Duration::from_millis(30);

/// A store in a place of its own, gone with the value.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Place {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::path::Path::new("/dev/shm");
        let base = if base.is_dir() {
            base.to_owned()
        } else {
            std::env::temp_dir()
        };
        Place(base.join(format!("vistagrams-api-{}-{count}", std::process::id())))
    }

    pub fn store<B: Backend>(&self) -> Store<B> {
        let options = Options {
            log_len: 32 << 20,
            protect: false,
        };
        Store::open_or_create(&self.0, options).unwrap()
    }

    pub fn open(&self) -> Grams<Tmpfs> {
        self.open_with(|_| {})
    }

    pub fn open_with(&self, change: impl FnOnce(&mut Settings)) -> Grams<Tmpfs> {
        let mut settings = Settings::at("127.0.0.1:0".parse().unwrap());
        change(&mut settings);
        Grams::open(self.store(), settings).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn ask<B: Backend>(client: &mut Grams<B>, server: SocketAddr, message: &[u8]) -> RequestId {
    client
        .transaction(|tx| {
            let peer = tx.peer(server)?;
            tx.send_request(peer, message)
        })
        .unwrap()
}

pub fn serve<B: Backend>(server: &mut Grams<B>) -> Vec<u8> {
    server
        .transaction(|tx| {
            let request = tx.receive_request(LONG)?.expect("a request");
            let body = request.body().to_vec();
            let mut reply = body.clone();
            reply.reverse();
            tx.send_response(request, &reply)?;
            Ok(body)
        })
        .unwrap()
}

pub fn hear<B: Backend>(client: &mut Grams<B>, id: RequestId) -> Vec<u8> {
    let awaited = client.awaited(id).unwrap();
    let answer = client.transaction(|tx| tx.receive_response(&awaited, LONG));
    answer.unwrap().expect("an answer").to_vec()
}
