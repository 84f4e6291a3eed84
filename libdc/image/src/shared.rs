//! What several processes know of one open file description: an entry for each.
//!
//! Like the table of processes it is not rolled back by copying: each value carries the
//! number of the commit from which on it holds.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::*};

use rio_core::mix;

use crate::run::holds;

/// An open file description, or a pipe, that several processes of the run may know: what
/// of it changes without a call of theirs.
#[repr(C, align(64))]
pub struct Shared {
    /// How many open files of all processes mean it; 0 is free.
    pub users: AtomicU32,
    /// It is free for another use from this commit on; 0 while it is used.
    pub free_from: AtomicU64,
    /// Of a pipe its inode.
    pub ino: AtomicU64,
    /// At a recovery: entry + 1 of the process that has made it again, and its
    /// descriptors there.
    pub maker: AtomicU32,
    pub made: [AtomicI32; 2],
    /// Two values, each from the commit on that it carries: the newer one that is not
    /// above `published` holds. Of a file its offset, of a pipe the bytes inside, of a socket
    /// those with [`Inside`].
    pub since: [AtomicU64; 2],
    pub value: [AtomicU64; 2],
    /// Of a pipe or socket a sum of the bytes inside.
    pub contents: [AtomicU64; 2],
    /// The flock(2) of the description, whichever process took it: two values like those.
    lock_since: [AtomicU64; 2],
    lock: [AtomicU64; 2],
    /// Of an end of a unix socket: what it and its other end have in common and no other two
    /// do (0: it is not known who has the other end), and the entry + 1 of that one.
    pub pair: AtomicU64,
    /// (Of a terminal: how many bytes its steps have.)
    pub peer: AtomicU32,
    /// Entry + 1 of a process that has this end, if one is known.
    pub holder: AtomicU32,
    /// The interval in which something went in or out last.
    pub moved: AtomicU64,
    /// Nonzero: somebody outside of the run may have it as well. (Of a terminal, what
    /// [`crate::terminal`] has bits for.)
    pub is_foreign: AtomicU32,
    /// Of an end that was connected: the entry + 1 of the socket that listens there. Of a
    /// terminal: one more than is just being typed, 0 if nothing is.
    pub listener: AtomicU32,
    /// Of a unix socket that listens, what tells its address from others. Of a terminal how much
    /// of what was printed is in a commit's hands: [`crate::terminal::Moving`].
    pub address: AtomicU64,
    /// Messages that have it, on their way to somebody.
    pub on_its_way: AtomicU32,
    /// At a cold recovery, of a fifo: bytes that the lost interval has read and written, in all
    /// processes.
    pub was_read: AtomicU32,
    pub was_written: AtomicU32,
    /// Of a terminal: how many bytes its steps had before what is just being typed.
    pub typed_from: AtomicU32,
}
const _: () = assert!(size_of::<Shared>() == 192);

/// What a commit has of an end of a unix socket: how much has come and is not read yet, and
/// which directions are shut down. As a value of [`Shared`]: bytes in the low half, flags
/// above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inside {
    pub len: usize,
    /// Nothing more will come.
    pub ends: bool,
    /// Nor can anything be sent.
    pub is_hung_up: bool,
    /// What has come could not be kept: too much, or descriptors among it.
    pub is_lost: bool,
    /// Nobody has accepted the connection: the bytes are those that were sent.
    pub waits: bool,
}

impl Inside {
    pub fn from_value(value: u64) -> Inside {
        Inside {
            len: value as u32 as usize,
            ends: value >> 32 & 1 != 0,
            is_hung_up: value >> 33 & 1 != 0,
            is_lost: value >> 34 & 1 != 0,
            waits: value >> 35 & 1 != 0,
        }
    }

    pub fn value(self) -> u64 {
        let flags = [self.ends, self.is_hung_up, self.is_lost, self.waits];
        let flags = (0..4).map(|i| u64::from(flags[i]) << (32 + i)).sum::<u64>();
        self.len as u64 | flags
    }
}

/// In [`Shared::maker`]: the keeper has made it, and every worker has it from there.
pub const BY_KEEPER: u32 = u32::MAX;

/// In [`Shared::ino`]: a terminal that the run has made, by its number. No inode is so high.
pub const fn pty_of(number: u32) -> u64 {
    u64::MAX - number as u64
}

/// In [`Shared::ino`]: a fifo, by the device and the inode of its file. No inode is so high, and
/// no terminal so low.
pub const fn fifo_of(dev: u64, ino: u64) -> u64 {
    1 << 62 | mix(dev, ino) >> 2
}

/// The number of a terminal that the run has made.
pub fn pty_number(ino: u64) -> Option<u32> {
    let number = u64::MAX - ino;
    (number <= 1 << 20).then_some(number as u32)
}

/// What such a terminal is set to: two places, as [`Shared::place_at`] has them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Settings {
    pub termios: [u8; 64],
    pub size: [u16; 4],
    pub locked: i32,
    pub packets: i32,
    _room: [u32; 12],
}
const _: () = assert!(size_of::<Settings>() == 128);

impl Settings {
    pub const NONE: Settings = Settings {
        termios: [0; 64],
        size: [0; 4],
        locked: 0,
        packets: 0,
        _room: [0; 12],
    };
}

/// What the state of a commit has of what processes share: part of the run's seal.
pub fn shared_sum<'a>(table: impl Iterator<Item = &'a Shared>, published: u64) -> u64 {
    table.enumerate().fold(0, |sum: u64, (at, s)| {
        sum.wrapping_add(s.sum_at(at, published))
    })
}

impl Shared {
    /// A free entry.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Shared {
        Shared {
            users: AtomicU32::new(0),
            free_from: AtomicU64::new(0),
            ino: AtomicU64::new(0),
            maker: AtomicU32::new(0),
            made: [const { AtomicI32::new(0) }; 2],
            since: [const { AtomicU64::new(0) }; 2],
            value: [const { AtomicU64::new(0) }; 2],
            contents: [const { AtomicU64::new(0) }; 2],
            lock_since: [const { AtomicU64::new(0) }; 2],
            lock: [const { AtomicU64::new(0) }; 2],
            pair: AtomicU64::new(0),
            peer: AtomicU32::new(0),
            holder: AtomicU32::new(0),
            moved: AtomicU64::new(0),
            is_foreign: AtomicU32::new(0),
            listener: AtomicU32::new(0),
            address: AtomicU64::new(0),
            on_its_way: AtomicU32::new(0),
            was_read: AtomicU32::new(0),
            was_written: AtomicU32::new(0),
            typed_from: AtomicU32::new(0),
        }
    }

    /// At a recovery: forgets what belongs to an interval that was lost, and who used it.
    pub fn roll_back(&self, published: u64) {
        for since in &self.since {
            if since.load(Relaxed) > published {
                since.store(0, Relaxed);
            }
        }
        for place in 0..2 {
            if self.lock_since[place].load(Relaxed) > published {
                let other = self.lock_since[1 - place].load(Relaxed);
                let was_none = !holds(other, published);
                // It was taken since: so there was none.
                self.lock[place].store(0, Relaxed);
                self.lock_since[place].store(if was_none { published } else { 0 }, Relaxed);
            }
        }
        self.users.store(0, Relaxed);
        // Nobody may use it from the next commit on, unless a process joins it. Not before:
        // its values belong to the state of this one, also if all who used it had ended.
        let was_set = self.since.iter().any(|since| since.load(Relaxed) != 0);
        if was_set && !holds(self.free_from.load(Relaxed), published) {
            self.free_from.store(published + 1, Relaxed);
        }
        self.maker.store(0, Relaxed);
        self.made[0].store(0, Relaxed);
        self.holder.store(0, Relaxed);
        self.on_its_way.store(0, Relaxed);
        self.was_read.store(0, Relaxed);
        self.was_written.store(0, Relaxed);
        if self.moved.load(Relaxed) > published && self.pair.load(Relaxed) != 0 {
            self.moved.store(0, Relaxed);
        }
    }

    /// Sets what holds from the commit `published + 1` on.
    pub fn set(&self, value: u64, published: u64) {
        self.set_with(value, 0, published);
    }

    /// The same of a pipe, with a sum of what is inside.
    pub fn set_with(&self, value: u64, contents: u64, published: u64) {
        let place = self.place_for(published);
        self.since[place].store(0, Release);
        self.value[place].store(value, Release);
        self.contents[place].store(contents, Release);
        self.since[place].store(published + 1, Release);
    }

    /// From when on it is free if nobody uses it from the commit `published + 1` on.
    pub fn when_left(&self, published: u64) -> u64 {
        match self.on_its_way.load(Relaxed) {
            0 => published + 1,
            // Whoever it comes to will use it.
            _ => u64::MAX,
        }
    }

    /// Whether nobody uses it in the state of a commit.
    pub fn is_free_at(&self, published: u64) -> bool {
        holds(self.free_from.load(Relaxed), published)
    }

    /// Which of the two places the commit to come may write: never that which holds.
    pub fn place_for(&self, published: u64) -> usize {
        match self.place_at(published) {
            Some(0) => 1,
            Some(_) => 0,
            None => 0,
        }
    }

    /// Which of the two places holds in the state of a commit.
    pub fn place_at(&self, published: u64) -> Option<usize> {
        newest(&self.since, published)
    }

    /// A sum of what the state of a commit has of it; 0 if that has nothing.
    fn sum_at(&self, at: usize, published: u64) -> u64 {
        let place = match self.is_free_at(published) {
            true => None,
            false => self.place_at(published),
        };
        place.map_or(0, |place| {
            let where_from = mix(at as u64 + 1, self.since[place].load(Relaxed));
            let value = self.value[place].load(Relaxed);
            mix(where_from, mix(value, self.contents[place].load(Relaxed)))
        })
    }

    /// Forgets what another description left here.
    pub fn begin(&self, ino: u64) {
        self.ino.store(ino, Relaxed);
        for since in self.since.iter().chain(&self.lock_since) {
            since.store(0, Relaxed);
        }
        self.pair.store(0, Relaxed);
        self.peer.store(0, Relaxed);
        self.holder.store(0, Relaxed);
        self.moved.store(0, Relaxed);
        self.is_foreign.store(0, Relaxed);
        self.listener.store(0, Relaxed);
        self.address.store(0, Relaxed);
        self.on_its_way.store(0, Relaxed);
        self.free_from.store(0, Relaxed);
        self.users.store(1, Relaxed);
    }

    /// The lock from the commit `published + 1` on: as flock(2) has it, 0 for none.
    pub fn set_lock(&self, mode: u64, published: u64) {
        let place = match newest(&self.lock_since, published) {
            Some(0) => 1,
            _ => 0,
        };
        self.lock_since[place].store(0, Release);
        self.lock[place].store(mode, Release);
        self.lock_since[place].store(published + 1, Release);
    }

    /// The lock in the state of a commit; none if there never was one.
    pub fn lock_at(&self, published: u64) -> Option<u64> {
        newest(&self.lock_since, published).map(|place| self.lock[place].load(Relaxed))
    }

    /// What holds in the state of a commit, if it was ever set.
    pub fn get(&self, published: u64) -> Option<u64> {
        self.place_at(published)
            .map(|place| self.value[place].load(Relaxed))
    }
}

/// The newer one of two values that is not above `published`.
fn newest(since: &[AtomicU64; 2], published: u64) -> Option<usize> {
    let since = [since[0].load(Acquire), since[1].load(Acquire)];
    (0..2)
        .filter(|&place| holds(since[place], published))
        .max_by_key(|&place| since[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_read_as_it_was_written() {
        for flags in 0..16 {
            let inside = Inside {
                len: 200_000,
                ends: flags & 1 != 0,
                is_hung_up: flags & 2 != 0,
                is_lost: flags & 4 != 0,
                waits: flags & 8 != 0,
            };
            assert_eq!(Inside::from_value(inside.value()), inside);
        }
    }

    #[test]
    fn the_value_that_holds_is_never_written() {
        let s = Shared::new();
        assert_eq!(s.get(9), None);
        s.set(10, 1);
        assert_eq!((s.get(1), s.get(2)), (None, Some(10)));
        s.set(11, 2);
        assert_eq!((s.get(2), s.get(3)), (Some(10), Some(11)));
        // Twice in one interval: the one of the last commit stays.
        s.set(12, 2);
        assert_eq!((s.get(2), s.get(3)), (Some(10), Some(12)));
        s.set_lock(2, 2);
        assert_eq!((s.lock_at(2), s.lock_at(3)), (None, Some(2)));
        s.set_lock(0, 3);
        assert_eq!((s.lock_at(3), s.lock_at(4)), (Some(2), Some(0)));
        s.set(13, 3);
        assert_eq!((s.get(3), s.get(4)), (Some(12), Some(13)));
    }
}
