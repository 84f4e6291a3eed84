//! Collects one command: a line, and the literals that it announces.
//!
//! `{5}` at the end of a line is a literal for which the client waits until it is
//! told to go on; `{5+}` comes at once (RFC 7888). What comes out is the command
//! as one run of octets, literals in their place, for `parse.rs`.

use crate::net::connection::{Connection, Trouble};

/// A line without its literals, and how many literals it may have.
const MAX_LINE: usize = 64 << 10;
const MAX_LITERALS: usize = 1024;
/// Strings in commands other than APPEND: names, passwords, what to search for.
const MAX_STRING: usize = 64 << 10;

pub enum Frame {
    Command(Vec<u8>),
    /// The command cannot be taken; the connection stays in step.
    Refused {
        tag: String,
        text: &'static str,
    },
    /// The client went away.
    End,
}

/// Reads a command. `max_message` is how long the literal of an APPEND may be.
pub async fn read(connection: &mut Connection, max_message: usize) -> Result<Frame, Trouble> {
    let mut command = Vec::new();
    let mut lines_len = 0;
    let mut refused = None;
    for _ in 0..MAX_LITERALS {
        let Some(line) = connection.read_line(MAX_LINE).await? else {
            return Ok(Frame::End);
        };
        lines_len += line.len();
        if lines_len > MAX_LINE {
            return Err(Trouble::LineTooLong);
        }
        let literal = announced(&line);
        command.extend_from_slice(&line);
        let Some((len, waits)) = literal else {
            return Ok(match refused {
                Some(text) => Frame::Refused {
                    tag: tag_of(&command),
                    text,
                },
                None => Frame::Command(command),
            });
        };
        let most = if is_append(&command) {
            max_message
        } else {
            MAX_STRING
        };
        if len > most as u64 {
            let text = if most == MAX_STRING {
                "BAD The literal is longer than a string of this command can be"
            } else {
                "NO [TOOBIG] The message is longer than this server takes"
            };
            if waits {
                // The client has not sent it and now will not.
                return Ok(Frame::Refused {
                    tag: tag_of(&command),
                    text,
                });
            }
            if len > 4 * max_message as u64 {
                return Err(Trouble::LineTooLong);
            }
            connection.skip(len).await?;
            refused = Some(text);
        } else {
            if waits {
                connection.send(b"+ OK\r\n").await?;
            }
            connection.read_exact(len as usize, &mut command).await?;
        }
    }
    Err(Trouble::LineTooLong)
}

/// The literal that ends the line: its length, and whether the client waits.
pub fn announced(line: &[u8]) -> Option<(u64, bool)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let inside = line.strip_suffix(b"}")?;
    let open = memchr::memrchr(b'{', inside)?;
    let inside = &inside[open + 1..];
    let (digits, waits) = match inside.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (inside, true),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let len = digits
        .iter()
        .fold(0, |len, digit| len * 10 + u64::from(digit - b'0'));
    Some((len, waits))
}

fn is_append(command: &[u8]) -> bool {
    let mut words = command.splitn(3, |byte| *byte == b' ');
    words
        .nth(1)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"APPEND"))
}

/// The tag of a command that could not be read otherwise, `*` if there is none.
pub fn tag_of(command: &[u8]) -> String {
    let tag = command
        .split(|byte| *byte == b' ')
        .next()
        .unwrap_or_default();
    let valid = !tag.is_empty()
        && tag.len() <= 64
        && tag.iter().all(|byte| super::cursor::is_tag_char(*byte));
    if valid {
        String::from_utf8_lossy(tag).into_owned()
    } else {
        "*".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_seen_only_at_the_end_of_a_line() {
        assert_eq!(announced(b"a LOGIN {5}\r\n"), Some((5, true)));
        assert_eq!(announced(b"a LOGIN {5+}\n"), Some((5, false)));
        for none in [
            &b"a {5} b\r\n"[..],
            b"{}\r\n",
            b"{+}\r\n",
            b"{-1}\r\n",
            b"5}\r\n",
            b"{5}",
            b"{9999999999999999999}\r\n",
        ] {
            assert_eq!(announced(none), None);
        }
        assert_eq!(tag_of(b"a1 NOOP"), "a1");
        assert_eq!(tag_of(b"\xff NOOP"), "*");
    }
}
