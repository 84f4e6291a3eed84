//! The Rust interface on real sockets of this machine, used rightly and wrongly.

mod place;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use place::{LONG, Place, SHORT, ask, hear, serve};
use vista::{Options, Ptr, SegmentOptions, Store, Tmpfs};
use vistagrams::{Error, Grams, Ready, RequestId, Settings};

#[test]
fn requests_and_responses_of_every_length_arrive_once() {
    let (here, there) = (Place::new(), Place::new());
    let (mut client, mut server) = (here.open(), there.open());
    let address = server.address();
    for len in [0, 1, 95, 1336, 1337, 5000, 100_000, 3_000_000] {
        let message: Vec<u8> = (0..len)
            .map(|index| (index * 31 + index / 251) as u8)
            .collect();
        let id = ask(&mut client, address, &message);
        let server = &mut server;
        let (got, answer) = std::thread::scope(|scope| {
            let serving = scope.spawn(move || serve(server));
            let answer = hear(&mut client, id);
            (serving.join().unwrap(), answer)
        });
        assert_eq!(got, message);
        let reversed: Vec<u8> = message.iter().rev().copied().collect();
        assert_eq!(answer, reversed, "{len} bytes");
        assert!(matches!(client.awaited(id), Err(Error::NoSuchRequest(_))));
    }
    assert_eq!(
        server.select(&[], SHORT),
        Ready::Nothing,
        "a request came twice"
    );
}

/// Their headers are written before them, where that is allowed; where they lie in an image is the
/// same.

#[test]
fn long_messages_arrive_from_protected_memory_and_after_a_restart_too() {
    let message = |len: usize| -> Vec<u8> { (0..len).map(|index| (index * 7) as u8).collect() };
    for (protect, key) in [(false, None), (true, None), (false, Some([7; 16]))] {
        let (here, there) = (Place::new(), Place::new());
        let open = |place: &Place, listen: SocketAddr| {
            let options = Options {
                log_len: 1 << 20,
                protect,
            };
            let mut settings = Settings::at(listen);
            settings.datagram = 9000;
            settings.key = key;
            let store = Store::<Tmpfs>::open_or_create(&place.0, options).unwrap();
            Grams::open(store, settings).unwrap()
        };
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let (mut client, mut server) = (open(&here, anywhere), open(&there, anywhere));
        let address = server.address();
        for (round, len) in [8192, 1400, 1024, 1023, 8999, 20_000]
            .into_iter()
            .enumerate()
        {
            if round % 2 == 1 {
                // Nobody listens to the first packet; the next start sends it from its table.
                drop(server);
                let id = ask(&mut client, address, &message(len));
                drop(client);
                (client, server) = (open(&here, anywhere), open(&there, address));
                assert_eq!(client.unsettled(), [id]);
            } else {
                ask(&mut client, address, &message(len));
            }
            let id = client.unsettled()[0];
            let serving = &mut server;
            let (got, answer) = std::thread::scope(|scope| {
                let serving = scope.spawn(move || serve(serving));
                (hear(&mut client, id), serving.join().unwrap())
            });
            assert_eq!(answer, message(len), "{len} bytes");
            assert!(got.iter().rev().eq(&answer), "{len} bytes");
            if round == 0 {
                // A wrong sum would only delay it: what is sent again is summed anew.
                let rejected = [&client.counters(), &server.counters()].map(|c| c.rejected);
                assert_eq!(rejected, [0, 0]);
            }
        }
    }
}

#[test]
fn an_abort_sends_nothing_and_gives_back_what_was_received() {
    let (here, there) = (Place::new(), Place::new());
    let (mut client, mut server) = (here.open(), there.open());
    let address = server.address();
    let mut tx = client.begin().unwrap();
    let peer = tx.peer(address).unwrap();
    tx.send_request(peer, b"never").unwrap();
    tx.abort().unwrap();
    assert_eq!(server.select(&[], SHORT), Ready::Nothing);

    let id = ask(&mut client, address, b"once");
    for _ in 0..3 {
        let mut tx = server.begin().unwrap();
        let request = tx.receive_request(LONG).unwrap().unwrap();
        assert_eq!((request.body(), request.id()), (&b"once"[..], id));
        tx.send_response(request, b"not this").unwrap();
        drop(tx);
    }
    assert_eq!(serve(&mut server), b"once");
    let awaited = client.awaited(id).unwrap();
    for _ in 0..3 {
        let mut tx = client.begin().unwrap();
        let answer = tx.receive_response(&awaited, LONG).unwrap().unwrap();
        assert_eq!(*answer, *b"ecno");
        drop(tx);
    }
    assert_eq!(hear(&mut client, id), b"ecno");
}

#[test]
fn the_programs_own_memory_and_its_messages_are_one() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open();
    let address = server.address();
    let segment = client
        .store()
        .segment_or_create("own", SegmentOptions::raw(4096))
        .unwrap();
    let word: Ptr<u64> = Ptr::from_at(segment.at(0));
    let id = client
        .transaction(|tx| {
            tx.set(word, 7)?;
            let peer = tx.peer(address)?;
            tx.send_request(peer, b"7")
        })
        .unwrap();
    serve(&mut server);
    let awaited = client.awaited(id).unwrap();
    let mut tx = client.begin().unwrap();
    tx.receive_response(&awaited, LONG).unwrap().unwrap();
    tx.set(word, 8).unwrap();
    drop(tx);
    let value = client.transaction(|tx| Ok(*tx.get(word)?)).unwrap();
    assert_eq!(value, 7, "the abort undid both");
    assert_eq!(hear(&mut client, id), b"7");
}

#[test]
fn garbage_and_forgery_do_no_harm() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open();
    let address = server.address();
    let enemy = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = vec![0; 2000];
    let mut random = 1_u64;
    let mut flood = |target: SocketAddr| {
        for len in (0..1500).step_by(7) {
            for byte in &mut bytes[..len] {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *byte = random as u8;
            }
            if len % 2 == 0 && len > 4 {
                bytes[..4].copy_from_slice(b"VG\x01\x03");
            }
            let _ = enemy.send_to(&bytes[..len], target);
        }
    };
    flood(address);
    flood(client.address());
    let id = ask(&mut client, address, b"through it all");
    flood(address);
    assert_eq!(serve(&mut server), b"through it all");
    flood(client.address());
    assert_eq!(hear(&mut client, id), b"lla ti hguorht");
    assert_eq!(server.select(&[], SHORT), Ready::Nothing);
    assert!(server.counters().rejected > 100, "{:?}", server.counters());
}

#[test]
fn a_slow_server_costs_a_bounded_window() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open_with(|settings| settings.window = 8);
    let server = there.open();
    let address = server.address();
    let mut ids = Vec::new();
    let full = loop {
        let sent = client.transaction(|tx| {
            let peer = tx.peer(address)?;
            tx.send_request(peer, &[1; 100])
        });
        match sent {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(ids.len(), 8);
    assert!(
        matches!(full, Error::WindowFull { window: 8, .. }),
        "{full}"
    );
    assert!(full.to_string().contains("receive responses"), "{full}");
    drop(server);
    // Giving up makes room.
    let awaited = client.awaited(ids[0]).unwrap();
    client.transaction(|tx| tx.abandon(awaited)).unwrap();
    ask(&mut client, address, b"room again");
}

#[test]
fn misuse_is_an_error_that_says_what_to_do() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open();
    let address = server.address();
    let unknown = client.awaited(RequestId::NONE).unwrap_err();
    assert!(unknown.to_string().contains("no such request"), "{unknown}");
    let too_long = client.transaction(|tx| {
        let peer = tx.peer(address)?;
        tx.send_request(peer, &vec![0; (16 << 20) + 1])
    });
    assert!(matches!(too_long, Err(Error::TooLong { .. })));
    let id = ask(&mut client, address, b"x");
    // A request that outlives the transaction that was aborted is no request any more.
    let mut tx = server.begin().unwrap();
    let kept = tx.receive_request(LONG).unwrap().unwrap();
    drop(tx);
    let refused = server.transaction(|tx| tx.send_response(kept, b"y"));
    assert!(matches!(refused, Err(Error::NotReceived(_))), "{refused:?}");
    serve(&mut server);
    hear(&mut client, id);
    let other = Place::new();
    let taken = Grams::<Tmpfs>::open(other.store(), Settings::at(address));
    let taken = taken.err().expect("the address is taken");
    assert!(taken.to_string().contains("choose an address"), "{taken}");
    let mut settings = Settings::at(address);
    settings.window = 0;
    let wrong = Grams::<Tmpfs>::open(other.store(), settings).err().unwrap();
    assert!(wrong.to_string().contains("window is 0"), "{wrong}");
}

#[test]
fn a_forgotten_peer_leaves_nothing_behind_and_a_waiter_may_outlive_its_store() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open_with(|settings| {
        settings.ping_first = Duration::from_millis(20);
        settings.forget_after = Duration::from_millis(1);
    });
    let address = server.address();
    let id = ask(&mut client, address, b"only one");
    let peer = client.transaction(|tx| tx.peer(address)).unwrap();
    let busy = client.transaction(|tx| tx.forget_peer(peer));
    assert!(
        matches!(busy, Err(Error::PeerBusy { unsettled: 1, .. })),
        "{busy:?}"
    );
    serve(&mut server);
    hear(&mut client, id);
    client.transaction(|tx| tx.forget_peer(peer)).unwrap();
    let gone = client.transaction(|tx| tx.send_request(peer, b"x"));
    assert!(matches!(gone, Err(Error::NoSuchPeer(_))), "{gone:?}");
    // The server hears that all is settled, by the last word or because it asks.
    let mut blocks = usize::MAX;
    for _ in 0..100 {
        std::thread::sleep(SHORT);
        server.tidy().unwrap();
        let tables = server.store().segment("vistagrams").unwrap();
        blocks = server.store().blocks(tables).unwrap();
        if blocks == 1 {
            break;
        }
    }
    assert_eq!(blocks, 1, "the client is remembered for ever");
    let waiter = server.waiter();
    drop(server);
    assert_eq!(waiter.select(&[], SHORT), Ready::Nothing);
}
