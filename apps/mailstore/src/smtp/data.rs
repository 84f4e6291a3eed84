//! The text behind DATA: up to a line that is a dot, with the dots that were put
//! before other lines taken away (RFC 5321, section 4.5.2).
//!
//! Only CR LF ends a line here. A server that takes a bare LF for one where the
//! server before it does not lets a sender smuggle a second message.

use memchr::memchr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    InLine,
    AfterCr,
    AfterDot,
    AfterDotCr,
}

pub struct Text {
    place: Place,
    /// The text so far; nothing any more once it was too long.
    pub octets: Vec<u8>,
    pub is_too_long: bool,
    max: usize,
}

impl Text {
    pub fn new(max: usize) -> Text {
        Text {
            place: Place::LineStart,
            octets: Vec::new(),
            is_too_long: false,
            max,
        }
    }

    /// Takes octets in; says how many were used, and whether the text ended there.
    pub fn take(&mut self, input: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < input.len() {
            if self.place == Place::InLine {
                let len = memchr(b'\r', &input[at..]).unwrap_or(input.len() - at);
                self.octets.extend_from_slice(&input[at..at + len]);
                at += len;
                if at == input.len() {
                    break;
                }
            }
            let byte = input[at];
            at += 1;
            self.place = match (self.place, byte) {
                (Place::AfterDotCr, b'\n') => {
                    self.check_len();
                    return (at, true);
                }
                (Place::LineStart, b'.') => Place::AfterDot,
                (Place::AfterDot, b'\r') => Place::AfterDotCr,
                (Place::AfterCr, b'\n') => {
                    self.octets.push(byte);
                    Place::LineStart
                }
                (place, byte) => {
                    if place == Place::AfterDotCr {
                        self.octets.push(b'\r');
                    }
                    self.octets.push(byte);
                    if byte == b'\r' {
                        Place::AfterCr
                    } else {
                        Place::InLine
                    }
                }
            };
        }
        self.check_len();
        (at, false)
    }

    fn check_len(&mut self) {
        if self.is_too_long || self.octets.len() > self.max {
            self.is_too_long = true;
            self.octets = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one piece and octet by octet.
    fn read(input: &[u8]) -> (Vec<u8>, usize, bool) {
        let mut whole = Text::new(1000);
        let (used, done) = whole.take(input);
        let mut single = Text::new(1000);
        let mut count = 0;
        let mut single_done = false;
        for byte in input {
            count += 1;
            single_done = single.take(&[*byte]).1;
            if single_done {
                break;
            }
        }
        assert_eq!(
            (&whole.octets, used, done),
            (&single.octets, count, single_done)
        );
        (whole.octets, used, done)
    }

    #[test]
    fn dots_are_unstuffed_and_only_crlf_ends() {
        assert_eq!(
            read(b"a\r\n..b\r\n.c\r\n.\r\nQUIT"),
            (b"a\r\n.b\r\nc\r\n".to_vec(), 15, true)
        );
        assert_eq!(read(b".\r\n"), (b"".to_vec(), 3, true));
        for smuggled in [
            &b"a\n.\nb\r\n.\r\n"[..],
            b"a\n.\r\nb\r\n.\r\n",
            b"a\r\n.\nb\r\n.\r\n",
            b"a\r\n.\rb\r\n.\r\n",
        ] {
            let (_, used, done) = read(smuggled);
            assert!(done && used == smuggled.len(), "{smuggled:?}");
        }
        assert!(!read(b"a\r\n.\r").2);
    }

    #[test]
    fn too_long_a_text_is_read_to_its_end() {
        let mut text = Text::new(10);
        assert_eq!(text.take(&[b'x'; 100]), (100, false));
        assert_eq!(text.take(b"\r\n.\r\n"), (5, true));
        assert!(text.is_too_long && text.octets.is_empty());
    }
}
