//! Peers that come back, that have moved, that are others, and that are reached by IPv6.

mod place;

use std::net::SocketAddr;

use place::{LONG, Place, SHORT, ask, hear, serve};
use vista::{Disk, Tmpfs};
use vistagrams::{Error, Grams, Ready, Request, Settings};

#[test]
fn both_sides_go_on_where_they_were_after_a_restart() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let server = there.open();
    let address = server.address();
    drop(server);
    // Nobody is there: the request waits.
    let id = ask(&mut client, address, b"patient");
    assert_eq!(client.unsettled(), [id]);
    drop(client);
    let client = here.open();
    assert_eq!(client.unsettled(), [id]);
    let mut server = there.open_with(|settings| settings.listen = address);
    // Received in one transaction, answered by a later start in another.
    let received = server
        .transaction(|tx| tx.receive_request(LONG))
        .unwrap()
        .unwrap();
    assert_eq!(received.id(), id);
    drop(server);
    let mut server = there.open_with(|settings| settings.listen = address);
    let mut unanswered = server.unanswered();
    assert_eq!(unanswered.iter().map(Request::id).collect::<Vec<_>>(), [id]);
    let request = unanswered.pop().unwrap();
    server
        .transaction(|tx| tx.send_response(request, b"at last"))
        .unwrap();
    assert!(server.unanswered().is_empty());
    drop(client);
    let mut client = here.open();
    assert_eq!(hear(&mut client, id), b"at last");
}

#[test]
fn a_server_that_comes_back_elsewhere_tells_its_clients() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open();
    let old = server.address();
    let id = ask(&mut client, old, b"first");
    serve(&mut server);
    hear(&mut client, id);
    drop(server);
    let id = ask(&mut client, old, b"second");
    let mut server = there.open();
    assert_ne!(server.address(), old);
    assert_eq!(serve(&mut server), b"second");
    assert_eq!(hear(&mut client, id), b"dnoces");
}

#[test]
fn another_installation_is_not_taken_for_the_former_one() {
    let (here, there, other) = (Place::new(), Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open();
    let address = server.address();
    let id = ask(&mut client, address, b"first");
    serve(&mut server);
    hear(&mut client, id);
    let id = ask(&mut client, address, b"second");
    drop(server);
    // A start without a request has no stream to hold it back by: restarted, it greets anew.
    drop(client);
    let mut client = here.open();
    let mut server = other.open_with(|settings| settings.listen = address);
    let awaited = client.awaited(id).unwrap();
    let refused = client.transaction(|tx| tx.receive_response(&awaited, LONG));
    assert!(
        matches!(refused, Err(Error::ServerReplaced { .. })),
        "{refused:?}"
    );
    let peer = client.transaction(|tx| tx.peer(address)).unwrap();
    client.accept_replacement(peer).unwrap();
    assert_eq!(serve(&mut server), b"second");
    assert_eq!(hear(&mut client, id), b"dnoces");
}

#[test]
fn on_disk_and_over_ipv6_with_a_key() {
    let (here, there) = (Place::new(), Place::new());
    let mut settings = Settings::at("[::1]:0".parse().unwrap());
    settings.key = Some(*b"a key of 16 byte");
    let mut client: Grams<Disk> = Grams::open(here.store(), settings.clone()).unwrap();
    let mut server: Grams<Disk> = Grams::open(there.store(), settings.clone()).unwrap();
    let address = server.address();
    let id = ask(&mut client, address, &[3; 4000]);
    assert_eq!(serve(&mut server), [3; 4000]);
    assert_eq!(hear(&mut client, id), [3; 4000]);

    // Without the key nobody is heard.
    let stranger = Place::new();
    let mut stranger: Grams<Tmpfs> =
        Grams::open(stranger.store(), Settings::at("[::1]:0".parse().unwrap())).unwrap();
    let id = ask(&mut stranger, address, b"let me in");
    let awaited = stranger.awaited(id).unwrap();
    let answer = stranger
        .transaction(|tx| tx.receive_response(&awaited, SHORT))
        .unwrap();
    assert!(answer.is_none());
    assert_eq!(server.select(&[], SHORT), Ready::Nothing);
    assert!(server.counters().rejected > 0);
}

#[test]
fn ipv4_reaches_a_socket_of_both() {
    let (here, there) = (Place::new(), Place::new());
    let mut client = here.open();
    let mut server = there.open_with(|settings| settings.listen = "[::]:0".parse().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let id = ask(&mut client, address, b"four to six");
    serve(&mut server);
    assert_eq!(hear(&mut client, id), b"xis ot ruof");
}
