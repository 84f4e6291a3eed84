//! A message that was received, as a program and the machine hold it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// The bytes of a message. To clone one copies no bytes: a transaction keeps what it received until
/// it ends, because an abort gives it back.
#[derive(Clone, Default)]
pub struct Message {
    /// Often with something before the message: the packet it came in.
    buffer: Arc<Vec<u8>>,
    start: usize,
    len: usize,
}

impl Message {
    /// So many bytes from `start` on, which the buffer has.
    pub(crate) fn part(buffer: Arc<Vec<u8>>, start: usize, len: usize) -> Message {
        assert!(start + len <= buffer.len());
        Message { buffer, start, len }
    }

    #[cfg(test)]
    pub(crate) fn buffer(&self) -> &Vec<u8> {
        &self.buffer
    }
}

impl Deref for Message {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        let len = bytes.len();
        Message::part(Arc::new(bytes), 0, len)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        **self == **other
    }
}

impl Eq for Message {}

impl PartialOrd for Message {
    fn partial_cmp(&self, other: &Message) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Message {
    fn cmp(&self, other: &Message) -> Ordering {
        self.deref().cmp(other)
    }
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.deref().hash(hasher);
    }
}
