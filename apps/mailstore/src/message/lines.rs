//! Line ends. Files have LF, as Maildir programs expect; the wire has CRLF. A
//! file that has CRLF already, from another server, is read as it is.

use memchr::{memchr, memchr_iter};

/// What is stored, and how long it is on the wire.
pub fn to_stored(text: &[u8]) -> (Vec<u8>, usize) {
    let mut stored = Vec::with_capacity(text.len());
    let mut line_ends = 0;
    let mut from = 0;
    for at in memchr_iter(b'\n', text) {
        let end = if at > from && text[at - 1] == b'\r' {
            at - 1
        } else {
            at
        };
        stored.extend_from_slice(&text[from..end]);
        stored.push(b'\n');
        line_ends += 1;
        from = at + 1;
    }
    stored.extend_from_slice(&text[from..]);
    // `\r\r\n` leaves a `\r` before its LF, which reading takes for a line end.
    let bare = memchr_iter(b'\n', &stored)
        .filter(|at| *at > 0 && stored[at - 1] == b'\r')
        .count();
    let wire_len = stored.len() + line_ends - bare;
    (stored, wire_len)
}

/// Puts a CR before each LF that has none.
pub fn to_wire(stored: Vec<u8>) -> Vec<u8> {
    if memchr(b'\n', &stored).is_none() {
        return stored;
    }
    let mut wire = Vec::with_capacity(stored.len() + stored.len() / 32 + 16);
    let mut from = 0;
    for at in memchr_iter(b'\n', &stored) {
        wire.extend_from_slice(&stored[from..at]);
        if at == 0 || stored[at - 1] != b'\r' {
            wire.push(b'\r');
        }
        wire.push(b'\n');
        from = at + 1;
    }
    wire.extend_from_slice(&stored[from..]);
    wire
}

/// Splits a text with CRLF line ends behind its header, which keeps the empty line.
pub fn split_header(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(header_len(text))
}

/// How long the header is, its empty line included.
pub fn header_len(text: &[u8]) -> usize {
    let mut from = 0;
    while let Some(len) = memchr(b'\n', &text[from..]) {
        let line = &text[from..from + len];
        from += len + 1;
        if line.is_empty() || line == b"\r" {
            return from;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back_with_the_length_it_was_said_to_have() {
        let texts: [&[u8]; 9] = [
            b"",
            b"a",
            b"\n",
            b"\r\n",
            b"a\r\n\r\nb",
            b"a\nb\r\n",
            b"\r\r\n",
            b"a\rb\r\n",
            b"\n\n\r",
        ];
        for text in texts {
            let (stored, wire_len) = to_stored(text);
            let wire = to_wire(stored);
            assert_eq!(wire.len(), wire_len, "{text:?}");
            assert!(
                !wire.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r'),
                "{text:?}"
            );
        }
        assert_eq!(to_wire(to_stored(b"a\r\nb\n").0), b"a\r\nb\r\n");
    }

    #[test]
    fn a_header_ends_with_the_first_empty_line() {
        assert_eq!(header_len(b"A: b\r\n\r\nbody"), 8);
        assert_eq!(header_len(b"\r\nbody"), 2);
        assert_eq!(header_len(b"A: b\r\n c"), 8);
        assert_eq!(header_len(b"A: b\n\nx"), 6);
    }
}
