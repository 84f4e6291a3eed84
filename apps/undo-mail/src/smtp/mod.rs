//! SMTP on both sides: `front` takes mail from clients, `client` hands it to the real server.

pub mod client;
pub mod front;

/// Reads one line of at most `longest` bytes, without its end. `None`: the connection has ended.
/// The rest of a line that is too long is skipped, and reported as an error of this line.
pub fn read_line(
    reader: &mut impl std::io::BufRead,
    longest: usize,
) -> std::io::Result<Option<Result<Vec<u8>, &'static str>>> {
    use std::io::{BufRead, Read};
    let mut line = Vec::new();
    reader
        .by_ref()
        .take(longest as u64)
        .read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        return Ok(Some(Ok(line)));
    }
    if line.len() < longest {
        return Ok(None);
    }
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let end = buffer.iter().position(|&b| b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(Err("the line is too long")));
        }
    }
}
