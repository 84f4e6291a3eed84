//! Threads that share a store, and threads that wait beside it.

mod place;

use std::time::Duration;

use place::{LONG, Place, SHORT, ask, hear, serve};
use vistagrams::{Error, Ready};

#[test]
fn threads_share_a_store_and_wait_beside_each_other() {
    let (here, there) = (Place::new(), Place::new());
    let client = std::sync::Mutex::new(here.open());
    let mut server = there.open();
    let address = server.address();
    let (threads, rounds) = (4_u64, 50_u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let client = &client;
            scope.spawn(move || {
                let waiter = client.lock().unwrap().waiter();
                for round in 0..rounds {
                    let message = (thread * 1000 + round).to_le_bytes();
                    // A thread that is behind with its answer holds up the window for all.
                    let id = loop {
                        let sent = client.lock().unwrap().transaction(|tx| {
                            let peer = tx.peer(address)?;
                            tx.send_request(peer, &message)
                        });
                        match sent {
                            Err(Error::WindowFull { .. }) => std::thread::sleep(SHORT),
                            sent => break sent.unwrap(),
                        }
                    };
                    let awaited = client.lock().unwrap().awaited(id).unwrap();
                    assert_ne!(waiter.select(&[awaited], LONG), Ready::Nothing);
                    let mut expected = message;
                    expected.reverse();
                    assert_eq!(hear(&mut client.lock().unwrap(), id), expected);
                }
            });
        }
        for _ in 0..threads * rounds {
            serve(&mut server);
        }
    });
    assert_eq!(server.select(&[], SHORT), Ready::Nothing);
}

/// A wait without an end has no timeout of its own: what comes wakes it, and so does the end.
#[test]
fn a_wait_without_an_end_ends_with_a_message_or_with_the_store() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let (here, there) = (Place::new(), Place::new());
        let listen =
            |settings: &mut vistagrams::Settings| settings.listen = listen.parse().unwrap();
        let mut client = here.open_with(listen);
        let server = there.open_with(listen);
        let mut address = server.address();
        if address.ip().is_unspecified() {
            address.set_ip(match address.is_ipv4() {
                true => std::net::Ipv4Addr::LOCALHOST.into(),
                false => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let waiter = server.waiter();
        let thread = std::thread::spawn(move || waiter.select(&[], Duration::MAX));
        std::thread::sleep(4 * SHORT);
        ask(&mut client, address, b"wake");
        assert_eq!(thread.join().unwrap(), Ready::Request);
        drop(server);

        // And of one that nothing has come for.
        let lonely = Place::new();
        let server = lonely.open_with(listen);
        let waiter = server.waiter();
        let thread = std::thread::spawn(move || waiter.select(&[], Duration::MAX));
        std::thread::sleep(4 * SHORT);
        drop(server);
        assert_eq!(thread.join().unwrap(), Ready::Nothing);
    }
}

/// Lost packets are sent again although the reader has no timeout: the keeper of time sees to it.
#[test]
fn a_wait_without_an_end_for_a_server_that_is_away_is_answered_when_it_is_back() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open();
    let address = server.address();
    let id = ask(&mut client, address, b"first");
    serve(&mut server);
    assert_eq!(hear(&mut client, id), b"tsrif");
    drop(server);
    let id = ask(&mut client, address, b"again");
    std::thread::scope(|scope| {
        let client = &mut client;
        let hearing = scope.spawn(move || {
            let awaited = client.awaited(id).unwrap();
            let answer = client.transaction(|tx| tx.receive_response(&awaited, Duration::MAX));
            answer.unwrap().unwrap().to_vec()
        });
        std::thread::sleep(10 * SHORT);
        let mut server = there.open_with(|settings| settings.listen = address);
        serve(&mut server);
        assert_eq!(hearing.join().unwrap(), b"niaga");
    });
}
