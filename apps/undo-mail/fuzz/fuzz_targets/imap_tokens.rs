//! Any octets as what a client or a server says: what was understood is written and understood again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undo_mail::canonical;
use undo_mail::imap::token::{self, Longest, Token};

const LONGEST: Longest = Longest { line: 1 << 16, literals: 1 << 16 };

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(frame)) = token::read_frame(&mut rest, LONGEST, || Ok(())) {
        let Ok(tokens) = token::parse(&frame) else { continue };
        for tokens in tokens.chunks(2) {
            let text = tokens[0].text().unwrap_or_default();
            if let Ok(ranges) = token::sequence_set(&text, 9) {
                assert!(ranges.iter().all(|(from, to)| from <= to));
            }
        }
        let items: Vec<(String, Token)> = tokens
            .chunks_exact(2)
            .map(|pair| (pair[0].word().unwrap_or_default(), pair[1].clone()))
            .collect();
        let shown = canonical::shown(&items);
        assert_eq!(shown, canonical::shown(&items));
        for token in &tokens {
            let Some(bytes) = token.bytes() else { continue };
            let mut line = token::quote(bytes);
            line.extend(b"\r\n");
            let again = token::parse(&line).expect("what we quote is understood");
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].bytes(), Some(bytes));
        }
    }
});
