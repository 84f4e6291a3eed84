//! The text of DATA comes out the same in whatever pieces it came, and what the
//! relay is sent for it comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstore::message::lines;
use mailstore::queue::client;
use mailstore::smtp::data::Text;

fuzz_target!(|input: &[u8]| {
    let mut whole = Text::new(1 << 20);
    let (used, done) = whole.take(input);
    let mut single = Text::new(1 << 20);
    let mut count = 0;
    let mut single_done = false;
    for octet in input {
        count += 1;
        single_done = single.take(&[*octet]).1;
        if single_done {
            break;
        }
    }
    assert_eq!((&whole.octets, used, done), (&single.octets, count, single_done));
    let (stored, wire_len) = lines::to_stored(input);
    assert_eq!(lines::to_wire(stored).len(), wire_len);
    let mut relayed = Text::new(1 << 20);
    let sent = client::stuffed(input);
    assert_eq!(relayed.take(&sent), (sent.len(), true));
});
