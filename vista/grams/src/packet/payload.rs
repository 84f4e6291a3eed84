//! What packets carry beside messages.

use crate::NodeId;

/// What a server says about itself.
///
/// ```text
///  0  server node, 16 bytes
/// 16  boots u64: how often the server has started; the latest says where it is
/// 24  was u64: the stream that this one replaces
/// 32  cookie u64: proof that this stream was granted
/// 40  answers u64: the cookie of the packet that this is the answer to
/// 48  window u32: requests that may be unsettled | 4 zeros
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Welcome {
    pub server: NodeId,
    pub boots: u64,
    pub was: u64,
    pub cookie: u64,
    pub answers: u64,
    pub window: u32,
}

pub const WELCOME_LEN: usize = 56;

impl Welcome {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(WELCOME_LEN);
        bytes.extend_from_slice(&self.server.0);
        bytes.extend_from_slice(&self.boots.to_le_bytes());
        bytes.extend_from_slice(&self.was.to_le_bytes());
        bytes.extend_from_slice(&self.cookie.to_le_bytes());
        bytes.extend_from_slice(&self.answers.to_le_bytes());
        bytes.extend_from_slice(&self.window.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    pub fn parse(payload: &[u8]) -> Option<Welcome> {
        let bytes: &[u8; WELCOME_LEN] = payload.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
        Some(Welcome {
            server: NodeId(bytes[..16].try_into().expect("16")),
            boots: word(16),
            was: word(24),
            cookie: word(32),
            answers: word(40),
            window: u32::from_le_bytes(bytes[48..52].try_into().expect("4")),
        })
    }
}

/// Which fragments are there: all below `first`, and of the next 1024 those whose bit is set.
///
/// ```text
///  0  first u32: the first fragment that is missing; the number of all if none is
///  4  128 bytes, bit i: fragment first + i is there; trailing zero bytes are left out
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Have {
    pub first: u32,
    pub bits: Vec<u8>,
}

pub const HAVE_BITS: usize = 1024;

impl Have {
    pub fn to_bytes(&self) -> Vec<u8> {
        let used = self.bits.iter().rposition(|&byte| byte != 0);
        let mut bytes = self.first.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.bits[..used.map_or(0, |last| last + 1)]);
        bytes
    }

    pub fn parse(payload: &[u8]) -> Option<Have> {
        let (first, bits) = payload.split_first_chunk::<4>()?;
        (bits.len() <= HAVE_BITS / 8).then(|| Have {
            first: u32::from_le_bytes(*first),
            bits: bits.to_vec(),
        })
    }

    pub fn has(&self, fragment: u32) -> bool {
        let Some(index) = fragment.checked_sub(self.first) else {
            return true;
        };
        let byte = self.bits.get(index as usize / 8).copied().unwrap_or(0);
        byte >> (index % 8) & 1 != 0
    }
}
