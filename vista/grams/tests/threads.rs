//! Threads that share a store, and threads that wait beside it.

mod place;

use place::{LONG, Place, SHORT, hear, serve};
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
