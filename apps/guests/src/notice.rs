//! Takes dcrun's own lines out of a terminal's output.
//!
//! After everything was killed, the same command says in one line on standard error that it goes on; at the start it
//! may warn of what it cannot keep. At a terminal such lines land in the program's output, where a native run has
//! nothing. A person reads over them; the comparison must too. Only what comes before the program's own output is looked
//! at: in the middle of it such a line is a difference.

#[derive(Default)]
pub struct NoticeFilter {
    watching: bool,
    held: Vec<u8>,
    pub notices: Vec<String>,
}

impl NoticeFilter {
    /// The command was started, or started again: a notice may come next.
    pub fn started(&mut self) {
        self.watching = true;
    }

    /// Passes output through, without a notice at its beginning.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.watching {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        loop {
            let start = self
                .held
                .iter()
                .take_while(|b| matches!(b, b'\r' | b'\n'))
                .count();
            let rest = &self.held[start..];
            let intro = b"dcrun: ";
            if !rest.starts_with(&intro[..rest.len().min(intro.len())]) {
                self.watching = false;
                return std::mem::take(&mut self.held);
            }
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                return Vec::new();
            };
            self.notices
                .push(String::from_utf8_lossy(&rest[..end]).trim_end().to_owned());
            self.held.drain(..start + end + 1);
        }
    }

    /// What is still held back at the end of the run.
    pub fn finish(&mut self) -> Vec<u8> {
        self.watching = false;
        std::mem::take(&mut self.held)
    }
}

/// Splits standard error of its own (not at a terminal) into the program's bytes and dcrun's lines.
pub fn split_errors(bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
    let mut rest = Vec::new();
    let mut notices = Vec::new();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b"dcrun: ") {
            notices.push(String::from_utf8_lossy(line).trim_end().to_owned());
        } else {
            rest.extend_from_slice(line);
        }
    }
    (rest, notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_after_a_restart_is_taken_out_even_in_pieces() {
        let mut filter = NoticeFilter::default();
        assert_eq!(filter.pass(b"dcrun: too late\n"), b"dcrun: too late\n");
        filter.started();
        let mut seen = Vec::new();
        for piece in [&b"\r\ndcr"[..], b"un: nvi: resumed", b"\r\n>>> 1"] {
            seen.extend(filter.pass(piece));
        }
        assert_eq!(seen, b">>> 1");
        assert_eq!(filter.notices, ["dcrun: nvi: resumed"]);
    }

    #[test]
    fn other_output_after_a_restart_passes() {
        let mut filter = NoticeFilter::default();
        filter.started();
        assert_eq!(filter.pass(b"\r\nhello"), b"\r\nhello");
    }
}
