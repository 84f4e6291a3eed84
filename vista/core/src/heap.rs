//! The persistent heap: blocks in the user's segment, bits about them in window 0.
//!
//! A span of 64 KB holds blocks of one size, or is part of a run that is one large block. Bits and
//! class words are all there is; no free list can be torn. An undo record says "allocated" or
//! "doomed" about a block, and undoing it sets the bits so, which a second undo repeats harmlessly.
//!
//! A freed block stays allocated until the commit, marked doomed, so that nobody reuses what an
//! abort would bring back.

use rio_core::{At, Rio};

use crate::Fault;
use crate::header::load;
use crate::layout::{PLANE_WORDS, SPAN, SegmentInfo};
use crate::log::{Kind, Log};
use crate::sizes::{self, block_at, block_len, blocks_in_span, class_for};

/// State words of a span besides 0 (vacant) and a class: head of a large run, or a further part.
const LARGE: u64 = 1 << 32;
const PART: u64 = 1 << 33;
const DOOMED: u64 = 1 << 34;
const SPANS_MASK: u64 = LARGE - 1;

/// One segment's heap: the table row, and where to look first, which is only a hint.
#[derive(Clone, Copy)]
pub struct Heap {
    pub info: SegmentInfo,
    hints: [u32; sizes::COUNT],
}

enum Block {
    Small {
        span: usize,
        class: usize,
        bit: usize,
    },
    Large {
        span: usize,
        spans: usize,
    },
}
use Block::{Large, Small};

impl Heap {
    pub fn new(info: SegmentInfo) -> Heap {
        Heap {
            info,
            hints: [0; sizes::COUNT],
        }
    }

    /// Takes a block of at least `size` bytes; its content is whatever lay there.
    pub fn malloc<R: Rio>(
        &mut self,
        rio: &R,
        log: &mut Log,
        segment: usize,
        size: usize,
    ) -> Result<At, Fault> {
        let class = class_for(size);
        let found = match class {
            Some(class) => self.find_small(rio, segment, class)?,
            None => self.find_large(rio, segment, size.div_ceil(SPAN))?,
        };
        let Some(block) = found else {
            return Err(Fault::HeapFull { segment, size });
        };
        let at = At::new(segment, self.offset_of(&block));
        if let Small { span, class, .. } = block
            && self.class(rio, span) != class as u64
        {
            // An empty span of any class is as good as a vacant one, so this needs no undo.
            self.set_class(rio, span, class as u64);
            rio.order(self.info.class_at(span), 8);
        }
        log.push(rio, Kind::Malloc, at, block.arg(), &[])?;
        self.mark(rio, &block, true);
        Ok(at)
    }

    /// Dooms a block: it is free once the transaction commits. Returns what `finish_free` asks for.
    pub fn free<R: Rio>(&mut self, rio: &R, log: &mut Log, at: At) -> Result<u64, Fault> {
        let unknown = Fault::NotAllocated { at };
        let offset = at
            .offset()
            .checked_sub(self.info.heap_at as usize)
            .ok_or(unknown)?;
        let span = offset / SPAN;
        if span >= self.info.spans() {
            return Err(unknown);
        }
        let word = self.class(rio, span);
        let arg = if word & LARGE != 0 {
            word & !DOOMED
        } else {
            word
        };
        let block = decode(&self.info, at, arg).ok_or(unknown)?;
        if !self.is_allocated(rio, &block) || self.is_doomed(rio, &block) {
            return Err(unknown);
        }
        log.push(rio, Kind::Free, at, arg, &[])?;
        self.doom(rio, &block, true);
        Ok(arg)
    }

    /// Carries out a free at commit; the log still undoes it until the log is forgotten.
    pub fn finish_free<R: Rio>(&mut self, rio: &R, at: At, arg: u64) {
        let Some(block) = decode(&self.info, at, arg) else {
            return;
        };
        self.doom(rio, &block, false);
        self.mark(rio, &block, false);
        let (hint, span) = match block {
            Small { class, span, .. } => (class, span),
            Large { span, .. } => (0, span),
        };
        self.hints[hint] = self.hints[hint].min(span as u32);
    }

    pub fn undo<R: Rio>(&self, rio: &R, kind: Kind, at: At, arg: u64) {
        let Some(block) = decode(&self.info, at, arg) else {
            return;
        };
        self.mark(rio, &block, kind == Kind::Free);
        self.doom(rio, &block, false);
        self.each_word(&block, |word, len| rio.order(word, len));
    }

    /// Hands a block's content and bits to the commit.
    pub fn keep<R: Rio>(&self, rio: &R, kind: Kind, at: At, arg: u64) {
        let Some(block) = decode(&self.info, at, arg) else {
            return;
        };
        self.each_word(&block, |word, len| rio.keep(word, len));
        if kind == Kind::Malloc {
            rio.keep(at, block.len());
        }
    }

    /// Visits every allocated block, and thereby finds a state word that no writer wrote.
    pub fn each_block<R: Rio>(
        &self,
        rio: &R,
        segment: usize,
        mut visit: impl FnMut(At, usize),
    ) -> Result<(), Fault> {
        let mut span = 0;
        while span < self.info.spans() {
            let word = self.checked_class(rio, segment, span)?;
            if word == PART {
                return Err(Fault::HeapWord {
                    segment,
                    span,
                    word,
                });
            }
            if word & LARGE != 0 {
                let block = Large {
                    span,
                    spans: run_len(word),
                };
                visit(At::new(segment, self.offset_of(&block)), block.len());
            }
            let class = word as usize;
            for bit in 0..blocks_in_span(class) {
                if self.bit(rio, span, bit) {
                    let block = Small { span, class, bit };
                    visit(At::new(segment, self.offset_of(&block)), block.len());
                }
            }
            span += run_len(word);
        }
        Ok(())
    }

    fn find_small<R: Rio>(
        &mut self,
        rio: &R,
        segment: usize,
        class: usize,
    ) -> Result<Option<Block>, Fault> {
        let spans = self.info.spans();
        let mut span = self.hints[class] as usize;
        let mut seen = 0;
        while seen < spans {
            if span >= spans {
                span = 0;
            }
            let word = self.checked_class(rio, segment, span)?;
            if (word == class as u64 || self.is_vacant(rio, word, span))
                && let Some(bit) = self.first_clear(rio, span, blocks_in_span(class))
            {
                self.hints[class] = span as u32;
                return Ok(Some(Small { span, class, bit }));
            }
            seen += run_len(word);
            span += run_len(word);
        }
        Ok(None)
    }

    fn find_large<R: Rio>(
        &mut self,
        rio: &R,
        segment: usize,
        spans: usize,
    ) -> Result<Option<Block>, Fault> {
        for from in [self.hints[0] as usize, 0] {
            let (mut span, mut run) = (from, 0);
            while span < self.info.spans() {
                let word = self.checked_class(rio, segment, span)?;
                span += run_len(word);
                run = if self.is_vacant(rio, word, span - 1) {
                    run + 1
                } else {
                    0
                };
                if run == spans {
                    self.hints[0] = span as u32;
                    return Ok(Some(Large {
                        span: span - spans,
                        spans,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// A span without blocks is free for any use, whatever class it had last.
    fn is_vacant<R: Rio>(&self, rio: &R, word: u64, span: usize) -> bool {
        let empty = |index| load(rio, self.info.plane_at(span, index)) == 0;
        word == 0 || word < sizes::COUNT as u64 && (0..PLANE_WORDS).all(empty)
    }

    fn first_clear<R: Rio>(&self, rio: &R, span: usize, blocks: usize) -> Option<usize> {
        (0..blocks.div_ceil(64)).find_map(|index| {
            let bit = (!load(rio, self.info.plane_at(span, index))).trailing_zeros() as usize;
            (bit < 64 && index * 64 + bit < blocks).then_some(index * 64 + bit)
        })
    }

    fn class<R: Rio>(&self, rio: &R, span: usize) -> u64 {
        load(rio, self.info.class_at(span))
    }

    fn checked_class<R: Rio>(&self, rio: &R, segment: usize, span: usize) -> Result<u64, Fault> {
        let word = self.class(rio, span);
        let run = word & LARGE != 0
            && word & !(LARGE | DOOMED | SPANS_MASK) == 0
            && (1..=self.info.spans() - span).contains(&run_len(word));
        // A hint may lie inside a run that was allocated since.
        match run || word == PART || word < sizes::COUNT as u64 {
            true => Ok(word),
            false => Err(Fault::HeapWord {
                segment,
                span,
                word,
            }),
        }
    }

    fn set_class<R: Rio>(&self, rio: &R, span: usize, word: u64) {
        // SAFETY: class words are aligned and lie in window 0, as the header's check made sure;
        // every span here is below `spans` or comes from a checked record.
        unsafe { rio.store_word(self.info.class_at(span), word) }
    }

    fn is_allocated<R: Rio>(&self, rio: &R, block: &Block) -> bool {
        match *block {
            Small { span, bit, .. } => self.bit(rio, span, bit),
            Large { span, spans } => self.class(rio, span) & !DOOMED == LARGE | spans as u64,
        }
    }

    fn mark<R: Rio>(&self, rio: &R, block: &Block, allocated: bool) {
        match *block {
            Small { span, bit, .. } => self.set_bit(rio, span, bit, allocated),
            Large { span, spans } => {
                for part in 1..spans {
                    self.set_class(rio, span + part, if allocated { PART } else { 0 });
                }
                self.set_class(rio, span, if allocated { LARGE | spans as u64 } else { 0 });
            }
        }
    }

    fn is_doomed<R: Rio>(&self, rio: &R, block: &Block) -> bool {
        match *block {
            Small { span, bit, .. } => self.bit(rio, span, bit + 64 * PLANE_WORDS),
            Large { span, .. } => self.class(rio, span) & DOOMED != 0,
        }
    }

    fn doom<R: Rio>(&self, rio: &R, block: &Block, doomed: bool) {
        match *block {
            Small { span, bit, .. } => self.set_bit(rio, span, bit + 64 * PLANE_WORDS, doomed),
            Large { span, spans } if doomed => {
                self.set_class(rio, span, LARGE | DOOMED | spans as u64);
            }
            // `mark` writes the head without it.
            Large { .. } => {}
        }
    }

    fn bit<R: Rio>(&self, rio: &R, span: usize, bit: usize) -> bool {
        load(rio, self.info.plane_at(span, bit / 64)) >> (bit % 64) & 1 != 0
    }

    fn set_bit<R: Rio>(&self, rio: &R, span: usize, bit: usize, on: bool) {
        let at = self.info.plane_at(span, bit / 64);
        let old = load(rio, at);
        let mask = 1 << (bit % 64);
        let new = if on { old | mask } else { old & !mask };
        if new != old {
            // SAFETY: as in `set_class`; a bit's index is below twice the bits of a plane.
            unsafe { rio.store_word(at, new) }
        }
    }

    /// The words of metadata that say all about a block.
    fn each_word(&self, block: &Block, mut visit: impl FnMut(At, usize)) {
        match *block {
            Small { span, bit, .. } => {
                visit(self.info.class_at(span), 8);
                visit(self.info.plane_at(span, bit / 64), 8);
                visit(self.info.plane_at(span, bit / 64 + PLANE_WORDS), 8);
            }
            Large { span, spans } => visit(self.info.class_at(span), 8 * spans),
        }
    }

    fn offset_of(&self, block: &Block) -> usize {
        self.info.heap_at as usize
            + match *block {
                Small { span, class, bit } => span * SPAN + bit * block_len(class),
                Large { span, .. } => span * SPAN,
            }
    }
}

/// Visits the blocks of a heap whose image is only looked at.
pub fn each_block<R: Rio>(
    rio: &R,
    segment: usize,
    info: &SegmentInfo,
    visit: impl FnMut(At, usize),
) -> Result<(), Fault> {
    Heap::new(*info).each_block(rio, segment, visit)
}

/// Whether a log record can be about this heap.
pub fn check_block(info: &SegmentInfo, at: At, arg: u64) -> Option<()> {
    decode(info, at, arg).map(|_| ())
}

/// A block from its place and the class word (small) or the run's head word (large).
fn decode(info: &SegmentInfo, at: At, arg: u64) -> Option<Block> {
    let offset = at.offset().checked_sub(info.heap_at as usize)?;
    let (span, inside) = (offset / SPAN, offset % SPAN);
    if arg & LARGE != 0 {
        let spans = (arg & SPANS_MASK) as usize;
        let fits = arg & !(LARGE | SPANS_MASK) == 0 && spans > 0;
        let fits = fits && span.checked_add(spans)? <= info.spans() && inside == 0;
        return fits.then_some(Large { span, spans });
    }
    let class = usize::try_from(arg).ok()?;
    let bit = block_at(class, inside)?;
    (span < info.spans()).then_some(Small { span, class, bit })
}

/// How many spans the walk goes on by: a large run is one step.
fn run_len(word: u64) -> usize {
    if word & LARGE != 0 {
        (word & SPANS_MASK) as usize
    } else {
        1
    }
}

impl Block {
    fn arg(&self) -> u64 {
        match *self {
            Small { class, .. } => class as u64,
            Large { spans, .. } => LARGE | spans as u64,
        }
    }

    fn len(&self) -> usize {
        match *self {
            Small { class, .. } => block_len(class),
            Large { spans, .. } => spans * SPAN,
        }
    }
}
