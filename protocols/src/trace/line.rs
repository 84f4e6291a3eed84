//! The writer of trace lines, into a buffer of the caller's.

use super::{Class, Fate};

/// What a line says beyond its six fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Note {
    #[default]
    None,
    /// The send that a receive has received: process and sequence.
    From(u32, u64),
    /// The round of a prepare, an abort or a commit.
    Round(u64),
    /// The event at which a recovered process stands again; 0 is its beginning.
    To(u64),
}

/// One line of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    pub process: u32,
    pub sequence: u64,
    pub class: Class,
    /// The system call, or another word for the cause. Blanks and `#` become `_`, nothing becomes
    /// `?`: a field must not be empty.
    pub call: &'a str,
    pub fate: Fate,
    pub clock: &'a [(u32, u64)],
    pub note: Note,
}

/// The line is longer than what is left of the buffer; nothing of it counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferFull;

impl Line<'_> {
    /// Writes the line with its newline to the beginning of the buffer; its length in bytes.
    pub fn write_to(&self, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        let mut out = Out { buffer, len: 0 };
        out.number(self.process.into())?;
        out.byte(b' ')?;
        out.number(self.sequence)?;
        out.byte(b' ')?;
        out.text(self.class.name())?;
        out.byte(b' ')?;
        out.word(self.call)?;
        out.byte(b' ')?;
        out.text(self.fate.name())?;
        for (at, (process, sequence)) in self.clock.iter().enumerate() {
            out.byte(if at == 0 { b' ' } else { b',' })?;
            out.number((*process).into())?;
            out.byte(b':')?;
            out.number(*sequence)?;
        }
        match self.note {
            Note::None => {}
            Note::From(process, sequence) => {
                out.text(" from=")?;
                out.number(process.into())?;
                out.byte(b':')?;
                out.number(sequence)?;
            }
            Note::Round(round) => {
                out.text(" round=")?;
                out.number(round)?;
            }
            Note::To(sequence) => {
                out.text(" to=")?;
                out.number(sequence)?;
            }
        }
        out.byte(b'\n')?;
        Ok(out.len)
    }
}

struct Out<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl Out<'_> {
    fn byte(&mut self, byte: u8) -> Result<(), BufferFull> {
        *self.buffer.get_mut(self.len).ok_or(BufferFull)? = byte;
        self.len += 1;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), BufferFull> {
        text.bytes().try_for_each(|byte| self.byte(byte))
    }

    fn word(&mut self, word: &str) -> Result<(), BufferFull> {
        if word.is_empty() {
            return self.byte(b'?');
        }
        word.bytes().try_for_each(|byte| {
            let blank = byte <= b' ' || byte == b'#' || byte == 0x7f;
            self.byte(if blank { b'_' } else { byte })
        })
    }

    fn number(&mut self, mut number: u64) -> Result<(), BufferFull> {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        digits[at..].iter().try_for_each(|digit| self.byte(*digit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_whole_or_not_at_all() {
        let line = Line {
            process: 9,
            sequence: u64::MAX,
            class: Class::Receive,
            call: "recv from#",
            fate: Fate::Open,
            clock: &[(7, 3), (9, 1)],
            note: Note::From(7, 3),
        };
        let expected = b"9 18446744073709551615 receive recv_from_ - 7:3,9:1 from=7:3\n";
        let mut buffer = [0; 80];
        assert_eq!(line.write_to(&mut buffer), Ok(expected.len()));
        assert_eq!(&buffer[..expected.len()], expected);
        for short in 0..expected.len() {
            assert_eq!(line.write_to(&mut buffer[..short]), Err(BufferFull));
        }
    }
}
