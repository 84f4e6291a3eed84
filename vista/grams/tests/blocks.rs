//! Where messages lie in the store: a settled response gives its block to the next one, and no block
//! is lost, whoever aborts and whichever backend it is.

use std::path::PathBuf;
use std::time::Duration;

use vista::{Backend, Disk, Options, Store, Tmpfs};
use vistagrams::{Error, Grams, Settings};

const LONG: Duration = Duration::from_secs(20);

/// A directory in memory, gone with the value.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let shm = PathBuf::from("/dev/shm");
        let base = if shm.is_dir() {
            shm
        } else {
            std::env::temp_dir()
        };
        let place = base.join(format!("vistagrams-blocks-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir(&place).unwrap();
        Place(place)
    }

    fn open<B: Backend>(&self, name: &str) -> Grams<B> {
        let store: Store<B> =
            Store::open_or_create(&self.0.join(name), Options::default()).unwrap();
        Grams::open(store, Settings::at("127.0.0.1:0".parse().unwrap())).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn blocks<B: Backend>(grams: &mut Grams<B>) -> usize {
    let store = grams.store();
    let segment = store.segment(vistagrams::tables::SEGMENT).unwrap();
    store.blocks(segment).unwrap()
}

/// Answers with the request's bytes turned around, in the second try if `abort` says so.
fn serve<B: Backend>(server: &mut Grams<B>, abort: bool) -> Vec<usize> {
    let mut places = Vec::new();
    for fails in [true, false] {
        if fails && !abort {
            continue;
        }
        let done = server.transaction(|tx| {
            let request = tx.receive_request(LONG)?.expect("a request");
            let mut answer = request.body().to_vec();
            answer.reverse();
            if fails {
                answer.fill(0xee);
            }
            tx.send_response(request, &answer)?;
            places.push(answer.len());
            match fails {
                true => Err(Error::ReadOnly),
                false => Ok(()),
            }
        });
        assert_eq!(done.is_err(), fails);
    }
    places
}

fn responses_take_turns<B: Backend>(name: &str) {
    let place = Place::new(name);
    let (mut client, mut server) = (place.open::<B>("client"), place.open::<B>("server"));
    let address = server.address();
    let peer = client.transaction(|tx| tx.peer(address)).unwrap();
    let mut most = 0;
    for round in 0..120usize {
        // As before, of another class, and as before again.
        let len = [64, 64, 8192, 8192, 3000, 20_000, 0, 0][round / 3 % 8];
        let message: Vec<u8> = (0..len).map(|at| (at * 7 + round) as u8).collect();
        let id = client
            .transaction(|tx| tx.send_request(peer, &message))
            .unwrap();
        let awaited = client.awaited(id).unwrap();
        let server_ref = &mut server;
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || serve(server_ref, round % 3 == 1));
            client
                .transaction(|tx| tx.receive_response(&awaited, LONG))
                .unwrap()
                .expect("an answer")
        });
        let turned: Vec<u8> = message.iter().rev().copied().collect();
        assert!(*answer == turned[..], "round {round}: {len} bytes");
        if round == 0 {
            most = blocks(&mut server);
        }
        assert!(
            blocks(&mut server) <= most,
            "round {round}: a block was lost"
        );
        if round % 40 == 39 {
            // What is to be read at a start is whole.
            drop(server);
            server = place.open::<B>("server");
            let moved = server.address();
            client.move_peer(peer, moved).unwrap();
        }
    }
}

#[test]
fn a_settled_response_gives_its_block_to_the_next_one() {
    responses_take_turns::<Tmpfs>("tmpfs");
}

#[test]
fn on_a_disk_it_is_freed() {
    responses_take_turns::<Disk>("disk");
}
