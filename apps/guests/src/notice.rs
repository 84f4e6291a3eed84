//! Takes dcrun's own lines out of a terminal's output.
//!
//! After everything was killed, the same command says in one line on standard error that it goes on; at the start it
//! may warn of what it cannot keep. At a terminal such lines land in the program's output, where a native run has
//! nothing. A person reads over them; the comparison must too. Only what comes before the program's own output is looked
//! at: in the middle of it such a line is a difference.
//!
//! After a restart the terminal may still hand out what the killed program wrote. That comes first, and where the notice
//! stands behind it is where the restart was.

#[derive(Default)]
pub struct NoticeFilter {
    watching: bool,
    /// So many bytes of before the restart may still come.
    old: usize,
    held: Vec<u8>,
    pub notices: Vec<String>,
}

/// More than a terminal holds back.
const OLD_MOST: usize = 64 << 10;

const INTRO: &[u8] = b"dcrun: ";

/// What is the program's, and how much of it came before a notice that stood in it.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Passed {
    pub bytes: Vec<u8>,
    pub restart: Option<usize>,
}

impl NoticeFilter {
    /// The command was started: a notice may come next.
    pub fn started(&mut self) {
        self.watching = true;
        self.old = 0;
    }

    /// The command was started again: a notice comes, behind what the terminal still holds.
    pub fn started_again(&mut self) {
        self.watching = true;
        self.old = OLD_MOST;
    }

    /// Passes output through, without a notice at its beginning.
    pub fn pass(&mut self, bytes: &[u8]) -> Passed {
        if !self.watching {
            return Passed {
                bytes: bytes.to_vec(),
                restart: None,
            };
        }
        self.held.extend_from_slice(bytes);
        let mut passed = Passed::default();
        loop {
            let at = self.intro();
            let old = at.min(self.old);
            passed.bytes.extend(self.held.drain(..old));
            self.old -= old;
            if at > old {
                self.watching = false;
                passed.bytes.append(&mut self.held);
                return passed;
            }
            if !self.held.starts_with(INTRO) {
                return passed;
            }
            let Some(end) = self.held.iter().position(|b| *b == b'\n') else {
                return passed;
            };
            let line = String::from_utf8_lossy(&self.held[..end]);
            self.notices.push(line.trim_end().to_owned());
            self.held.drain(..=end);
            self.old = 0;
            passed.restart.get_or_insert(passed.bytes.len());
        }
    }

    /// Where a notice begins in what is held, or may begin at its end.
    fn intro(&self) -> usize {
        (0..self.held.len())
            .find(|&at| {
                let rest = &self.held[at..];
                rest.starts_with(&INTRO[..rest.len().min(INTRO.len())])
            })
            .unwrap_or(self.held.len())
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

    fn told(filter: &mut NoticeFilter, pieces: &[&[u8]]) -> (Vec<u8>, Option<usize>) {
        let (mut bytes, mut restart) = (Vec::new(), None);
        for piece in pieces {
            let passed = filter.pass(piece);
            restart = restart.or(passed.restart.map(|at| at + bytes.len()));
            bytes.extend(passed.bytes);
        }
        (bytes, restart)
    }

    #[test]
    fn a_notice_after_a_restart_is_taken_out_even_in_pieces() {
        let mut filter = NoticeFilter::default();
        assert_eq!(
            filter.pass(b"dcrun: too late\n").bytes,
            b"dcrun: too late\n"
        );
        filter.started_again();
        let seen = told(&mut filter, &[b"dcr", b"un: nvi: resumed", b"\r\n>>> 1"]);
        assert_eq!(seen, (b">>> 1".to_vec(), Some(0)));
        assert_eq!(filter.notices, ["dcrun: nvi: resumed"]);
        assert_eq!(filter.pass(b"dcrun: late\n").bytes, b"dcrun: late\n");
    }

    #[test]
    fn what_the_terminal_still_held_is_the_programs() {
        let mut filter = NoticeFilter::default();
        filter.started_again();
        let seen = told(
            &mut filter,
            &[b"\r\n", b"dc", b"dcrun: resuming\r\n\r\nmore"],
        );
        assert_eq!(seen, (b"\r\ndc\r\nmore".to_vec(), Some(4)));
    }

    #[test]
    fn other_output_at_a_start_passes() {
        let mut filter = NoticeFilter::default();
        filter.started();
        let seen = told(&mut filter, &[b"\r\nhello", b"dcrun: no\n"]);
        assert_eq!(seen, (b"\r\nhellodcrun: no\n".to_vec(), None));
    }
}
