//! The beginning of a process's state: what others than its own runtime read of it.

/// Holes that are told apart; of more, what lies between them is committed again.
pub const MAX_DISCARDS: usize = 120;

/// The first bytes of the state's first page.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct StateHead {
    /// Size of the state: another layout is another version.
    pub layout: u64,
    pub discard_count: u64,
    pub discards: [Discard; MAX_DISCARDS],
}

/// Pages of a range that ceased to be state with commit `seq`. A commit is published
/// before their frames are free: so whoever recovers must be told.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Discard {
    pub from: u64,
    pub to: u64,
    pub seq: u64,
}

const _: () = assert!(size_of::<StateHead>() <= crate::window::PAGE);

impl StateHead {
    /// As it lies in a page; a count that cannot be counts as none.
    pub fn of_page(page: &[u8; crate::window::PAGE]) -> StateHead {
        let mut words = page.chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_ne_bytes(bytes)
        });
        let mut next = || words.next().unwrap_or(0);
        let (layout, discard_count) = (next(), next());
        let discards = core::array::from_fn(|_| Discard {
            from: next(),
            to: next(),
            seq: next(),
        });
        StateHead {
            layout,
            discard_count,
            discards,
        }
    }

    pub fn discards(&self) -> &[Discard] {
        self.discards
            .get(..self.discard_count as usize)
            .unwrap_or(&[])
    }
}
