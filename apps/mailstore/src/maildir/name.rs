//! Names of message files, and the flags in them.
//!
//! ```text
//! 1732838400.M123456P77Q5.host,S=2310,W=2361:2,FS
//! |          |                |      |        `-- flags, sorted (not in `new`)
//! |          |                |      `----------- octets with CRLF line ends (RFC822.SIZE)
//! |          |                `------------------ octets of the file
//! |          `----------------------------------- microseconds, process, counter
//! `---------------------------------------------- seconds of delivery
//! ```
//! What stands before `:2,` is the *base*: it names the message for its whole
//! life. S= and W= are those of Maildir++ and Dovecot; a name without them is
//! as good, only slower.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Flags as bits: 0 to 25 are the keywords `a` to `z`, above them the six
/// letters of Maildir.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const DRAFT: Flags = Flags(1 << 26);
    pub const FLAGGED: Flags = Flags(1 << 27);
    pub const PASSED: Flags = Flags(1 << 28);
    pub const ANSWERED: Flags = Flags(1 << 29);
    pub const SEEN: Flags = Flags(1 << 30);
    pub const DELETED: Flags = Flags(1 << 31);

    const LETTERS: [(u8, Flags); 6] = [
        (b'D', Flags::DRAFT),
        (b'F', Flags::FLAGGED),
        (b'P', Flags::PASSED),
        (b'R', Flags::ANSWERED),
        (b'S', Flags::SEEN),
        (b'T', Flags::DELETED),
    ];

    /// The keyword with this number (0 is `a`).
    pub fn keyword(number: usize) -> Flags {
        debug_assert!(number < 26);
        Flags(1 << (number % 26))
    }

    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The letters in the order of Maildir: sorted by code.
    pub fn letters(self) -> String {
        let mut text = String::new();
        for (letter, flag) in Flags::LETTERS {
            if self.has(flag) {
                text.push(letter as char);
            }
        }
        for number in 0..26u8 {
            if self.has(Flags::keyword(number.into())) {
                text.push((b'a' + number) as char);
            }
        }
        text
    }

    /// Letters that Maildir does not know are passed over, as its paper says.
    pub fn of_letters(text: &str) -> Flags {
        text.bytes().fold(Flags::NONE, |flags, byte| {
            let flag = match byte {
                b'a'..=b'z' => Flags::keyword((byte - b'a').into()),
                _ => Flags::LETTERS
                    .iter()
                    .find(|l| l.0 == byte)
                    .map_or(Flags::NONE, |l| l.1),
            };
            flags.with(flag)
        })
    }
}

/// The base of a file's name and its flags.
pub fn split(file_name: &str) -> (&str, Flags) {
    match file_name.split_once(':') {
        Some((base, info)) => (
            base,
            info.strip_prefix("2,")
                .map_or(Flags::NONE, Flags::of_letters),
        ),
        None => (file_name, Flags::NONE),
    }
}

pub fn join(base: &str, flags: Flags) -> String {
    format!("{base}:2,{}", flags.letters())
}

/// A base that no other message has, for a message of this many octets.
pub fn fresh_base(file_len: usize, wire_len: usize) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "{}.M{:06}P{}Q{}.{},S={file_len},W={wire_len}",
        now.as_secs(),
        now.subsec_micros(),
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed),
        host(),
    )
}

/// A fresh base for a copy of this message: the sizes go with it.
pub fn base_of_copy(base: &str) -> String {
    let fresh = fresh_base(0, 0);
    let unique = fresh.split(',').next().unwrap_or_default();
    match base.split_once(',') {
        Some((_, sizes)) => format!("{unique},{sizes}"),
        None => unique.to_string(),
    }
}

/// The field `,S=` (octets of the file) or `,W=` (octets with CRLF).
pub fn size_field(base: &str, field: char) -> Option<u64> {
    base.split(',').skip(1).find_map(|part| {
        let mut chars = part.chars();
        (chars.next() == Some(field) && chars.next() == Some('='))
            .then(|| chars.as_str().parse().ok())
            .flatten()
    })
}

/// By what messages that came together are put in order: seconds, then
/// microseconds, then the counter of one process.
pub fn order(base: &str) -> (u64, u64, u64) {
    let mut parts = base.splitn(3, '.');
    let seconds = parts.next().and_then(|s| s.parse().ok()).unwrap_or(0);
    let middle = parts.next().unwrap_or_default();
    (
        seconds,
        number_after(middle, 'M'),
        number_after(middle, 'Q'),
    )
}

fn number_after(text: &str, mark: char) -> u64 {
    let Some((_, rest)) = text.split_once(mark) else {
        return 0;
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().unwrap_or(0)
}

/// This machine's name, with what a file name cannot hold replaced as Maildir says.
fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name: String = name
            .trim()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        if name.is_empty() {
            "localhost".into()
        } else {
            name
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_sorted_letters_and_come_back() {
        let flags = Flags::SEEN
            .with(Flags::DRAFT)
            .with(Flags::keyword(2))
            .with(Flags::keyword(0));
        assert_eq!(flags.letters(), "DSac");
        assert_eq!(Flags::of_letters("caSD!9"), flags);
        assert_eq!(
            split("1.M2.h,S=3:2,Sa"),
            ("1.M2.h,S=3", Flags::SEEN.with(Flags::keyword(0)))
        );
        assert_eq!(split("1.M2.h:1,x"), ("1.M2.h", Flags::NONE));
    }

    #[test]
    fn bases_are_unique_ordered_and_tell_sizes() {
        let first = fresh_base(10, 12);
        let second = base_of_copy(&first);
        assert_ne!(first, second);
        assert!(order(&first) < order(&second), "{first} {second}");
        assert_eq!(size_field(&second, 'S'), Some(10));
        assert_eq!(size_field(&second, 'W'), Some(12));
        assert_eq!(size_field("1.M2.h,S=x,W=", 'S'), None);
        assert_eq!(order("nonsense"), (0, 0, 0));
    }
}
