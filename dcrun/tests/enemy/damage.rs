//! The damages: bytes, frames, tables, words, journals and lengths of images.

use super::*;

impl Victim {
    /// One bit of a frame that counts.
    pub fn damage_a_frame(&self) {
        let frame = self.frames(0)[7];
        self.change(
            0,
            (FRAMES_OFFSET + frame * 4096 + 77) as u64,
            |b| b[0] ^= 4,
            1,
        );
    }

    /// A byte of each of these frames, of those that count.
    pub fn damage_frames(&self, which: std::ops::Range<usize>) {
        for frame in self
            .frames(0)
            .into_iter()
            .skip(which.start)
            .take(which.len())
        {
            let at = (FRAMES_OFFSET + frame * 4096 + 2077) as u64;
            self.change(0, at, |b| b[0] ^= 4, 1);
        }
    }

    /// Frames that count, of the nth image.
    fn frames(&self, nth: usize) -> Vec<usize> {
        let word = |at: usize| self.word(nth, at);
        let limit_at =
            |slot| RUN_OFFSET + PROCESSES_OFFSET + slot * 1024 + offset_of!(Process, frame_limit);
        let suffix = self.whole[nth]
            .0
            .extension()
            .and_then(|s| s.to_str()?.parse().ok());
        let slot = suffix.filter(|_| nth > 0).unwrap_or(0usize);
        let published = self.word(0, LIVE_OFFSET + offset_of!(Live, published));
        let limit = self.word(0, limit_at(slot)) as usize;
        (0..limit)
            .filter(|n| {
                let seq = word(TABLE_OFFSET + n * 16 + 8) & ((1 << 48) - 1);
                (1..=published).contains(&seq)
            })
            .collect()
    }

    fn word(&self, nth: usize, at: usize) -> u64 {
        u64::from_le_bytes(self.whole[nth].1.read(at as u64, 8).try_into().unwrap())
    }

    fn change(&self, nth: usize, at: u64, how: impl FnOnce(&mut [u8]), len: usize) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.whole[nth].0)
            .unwrap();
        let mut bytes = self.whole[nth].1.read(at, len);
        how(&mut bytes);
        file.write_all_at(&bytes, at).unwrap();
    }

    /// Damages one thing; says what.
    pub fn damage(&self, seed: u64) -> String {
        let mut random = Random(seed);
        let nth = random.below(self.images() as u64) as usize;
        match random.below(20) {
            0..=3 => self.damage_bytes_of_a_frame(nth, &mut random),
            4..=5 => self.exchange_frames(nth, &mut random),
            6..=9 => self.damage_table(nth, &mut random),
            10..=12 => self.damage_words(&mut random),
            13..=15 => self.damage_tables_of_the_run(&mut random),
            16..=17 => self.damage_journal(&mut random),
            18 => self.damage_length(nth, &mut random),
            _ => self.put_another_in_its_place(nth, &mut random),
        }
    }

    /// Flips a bit, or makes a byte, a word, a sector or a page something else.
    fn damage_somehow(&self, nth: usize, from: u64, len: u64, random: &mut Random) -> String {
        let (size, what): (u64, _) = match random.below(4) {
            0 => (1, "a byte"),
            1 => (8, "a word"),
            2 => (512, "a sector"),
            _ => (4096, "a page"),
        };
        let size = size.min(len);
        let at = from + random.below(len) / size * size;
        let size = size.min(from + len - at);
        let (kind, bits) = (random.below(3), random.next());
        self.change(
            nth,
            at,
            |bytes| match kind {
                0 => bytes[bits as usize % bytes.len()] ^= 1 << (bits >> 32 & 7),
                1 => bytes.fill(0),
                _ => bytes.iter_mut().for_each(|b| *b ^= (bits >> 40) as u8 | 1),
            },
            size as usize,
        );
        let how = ["one bit flipped", "zeroed", "inverted"][kind as usize];
        format!("image {nth}, {what} at {at:#x}: {how}")
    }

    fn damage_bytes_of_a_frame(&self, nth: usize, random: &mut Random) -> String {
        let frames = self.frames(nth);
        let frame = frames[random.below(frames.len() as u64) as usize];
        let at = (FRAMES_OFFSET + frame * 4096) as u64;
        format!(
            "frame {frame}: {}",
            self.damage_somehow(nth, at, 4096, random)
        )
    }

    fn exchange_frames(&self, nth: usize, random: &mut Random) -> String {
        let frames = self.frames(nth);
        let [a, b] = [(); 2].map(|()| frames[random.below(frames.len() as u64) as usize]);
        let at = |frame: usize| (FRAMES_OFFSET + frame * 4096) as u64;
        let entry = |frame: usize| (TABLE_OFFSET + frame * 16) as u64;
        let contents = |at: u64, len| self.whole[nth].1.read(at, len);
        let put = |at: u64, bytes: &[u8]| {
            self.change(nth, at, |to| to.copy_from_slice(bytes), bytes.len());
        };
        let what = match random.below(4) {
            0 => {
                put(at(a), &contents(at(b), 4096));
                put(at(b), &contents(at(a), 4096));
                "frames exchanged"
            }
            1 => {
                put(at(a), &contents(at(b), 4096));
                "frame copied over another"
            }
            2 => {
                put(at(a), &contents(at(b), 4096));
                put(entry(a), &contents(entry(b), 16));
                "frame and entry copied over another"
            }
            _ => {
                // As a frame that a power loss has not reached.
                let sector = random.below(8) * 512;
                put(at(a) + sector, &contents(at(b) + sector, 512));
                "sector of another frame"
            }
        };
        format!("image {nth}: {what}: {a}, {b}")
    }

    fn damage_table(&self, nth: usize, random: &mut Random) -> String {
        let frames = self.frames(nth);
        let [a, b] = [(); 2].map(|()| frames[random.below(frames.len() as u64) as usize]);
        let entry = |frame: usize| (TABLE_OFFSET + frame * 16) as u64;
        let other = self.whole[nth].1.read(entry(b), 16);
        match random.below(3) {
            0 => {
                self.change(nth, entry(a), |to| to.copy_from_slice(&other), 16);
                format!("image {nth}: entry {b} copied over {a}")
            }
            1 => {
                let own = self.whole[nth].1.read(entry(a), 16);
                self.change(nth, entry(a), |to| to.copy_from_slice(&other), 16);
                self.change(nth, entry(b), |to| to.copy_from_slice(&own), 16);
                format!("image {nth}: entries {a} and {b} exchanged")
            }
            _ => format!(
                "entry {a}: {}",
                self.damage_somehow(nth, entry(a), 16, random)
            ),
        }
    }

    /// Words of the first pages: header, live page, and what the run has for itself.
    fn damage_words(&self, random: &mut Random) -> String {
        let (from, len) = match random.below(4) {
            0 => (0, 64),
            1 => (LIVE_OFFSET, 256),
            2 => (LIVE_OFFSET, size_of::<Live>()),
            _ => (RUN_OFFSET, size_of::<Run>()),
        };
        self.damage_somehow(0, from as u64, len as u64, random)
    }

    fn damage_tables_of_the_run(&self, random: &mut Random) -> String {
        let high = self.word(0, (RUN_OFFSET + offset_of!(Run, high)) & !7);
        let high = if offset_of!(Run, high) % 8 == 4 {
            high >> 32
        } else {
            high & 0xffff_ffff
        };
        let slot = random.below(high.max(1)) as usize;
        let shared = self.word(0, (RUN_OFFSET + offset_of!(Run, shared_high)) & !7);
        let shared = match offset_of!(Run, shared_high) % 8 {
            4 => shared >> 32,
            _ => shared & 0xffff_ffff,
        };
        let at = random.below(shared.max(1)) as usize;
        let (what, from, len) = match random.below(4) {
            0 | 1 => (
                format!("process {slot}"),
                PROCESSES_OFFSET + slot * size_of::<Process>(),
                size_of::<Process>(),
            ),
            2 => (
                format!("shared {at}"),
                SHARED_OFFSET + at * size_of::<Shared>(),
                size_of::<Shared>(),
            ),
            _ => (
                format!("pipe {at}"),
                CONTENTS_OFFSET + (at * 2 + random.below(2) as usize) * (64 << 10),
                64,
            ),
        };
        let from = (RUN_OFFSET + from) as u64;
        format!(
            "{what}: {}",
            self.damage_somehow(0, from, len as u64, random)
        )
    }

    fn damage_journal(&self, random: &mut Random) -> String {
        let word = self.word(0, LIVE_OFFSET + offset_of!(Live, journal));
        let published = self.word(0, LIVE_OFFSET + offset_of!(Live, published));
        let tail = match word >> 32 == published + 1 {
            true => word & 0xffff_ffff,
            false => 0,
        };
        let len = (tail + 32).min(1 << 20);
        format!(
            "journal of {tail}: {}",
            self.damage_somehow(0, JOURNAL_OFFSET as u64, len, random)
        )
    }

    fn damage_length(&self, nth: usize, random: &mut Random) -> String {
        let (path, contents) = &self.whole[nth];
        let len = match random.below(4) {
            0 => contents.len + 4096 * random.below(100),
            1 => random.below(contents.len),
            2 => contents.len.saturating_sub(random.below(8 << 20)),
            _ => [
                0,
                1,
                4096,
                JOURNAL_OFFSET as u64,
                TABLE_OFFSET as u64,
                FRAMES_OFFSET as u64,
            ][random.below(6) as usize],
        };
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(len).unwrap();
        format!("image {nth}: length {len} of {}", contents.len)
    }

    fn put_another_in_its_place(&self, nth: usize, random: &mut Random) -> String {
        let (path, contents) = &self.whole[nth];
        match random.below(4) {
            0 => {
                self.other.write(path);
                format!("image {nth}: that of another run")
            }
            1 => {
                self.older[nth].1.write(path);
                format!("image {nth}: an older one")
            }
            2 => {
                let page = random.below(FRAMES_OFFSET as u64 / 4096 / 1024) * 4096;
                let old = self.older[nth].1.read(page, 4096);
                self.change(nth, page, |to| to.copy_from_slice(&old), 4096);
                format!("image {nth}: an older page at {page:#x}")
            }
            _ => {
                let other = (nth + 1) % self.images();
                self.whole[other].1.write(path);
                if other != nth {
                    contents.write(&self.whole[other].0);
                }
                format!("images {nth} and {other} exchanged")
            }
        }
    }
}
