//! What a disk that loses its power may leave of a journal, and what may be read of it then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vista_core::journal::{Found, Journal, RECORD_HEAD, Words};

const LEN: usize = 4096;

/// The memory of a journal, as a mapped image would hold it.
struct Image {
    bytes: Vec<u64>,
    word: AtomicU64,
    durable: AtomicU64,
    published: AtomicU64,
}

impl Image {
    fn new() -> Image {
        Image {
            bytes: vec![0; LEN / 8],
            word: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            published: AtomicU64::new(6),
        }
    }

    /// A worker that begins with what is there.
    fn journal(&mut self) -> Journal {
        let words = Words {
            word: &raw const self.word,
            durable: &raw const self.durable,
            published: &raw const self.published,
        };
        // SAFETY: the image outlives every journal of these tests.
        unsafe { Journal::new(self.bytes.as_mut_ptr().cast(), LEN, words, true) }
    }

    fn flip(&mut self, at: usize) {
        self.bytes[at / 8] ^= 0x10 << (at % 8 * 8);
    }
}

/// Payloads of different lengths, none among them.
fn payload(nth: usize) -> Vec<u8> {
    (0..nth * 7 % 40).map(|i| (i * nth) as u8).collect()
}

fn append(journal: &mut Journal, records: std::ops::Range<usize>) -> Vec<usize> {
    let mut ends = Vec::new();
    for nth in records {
        journal.append(nth as u32, &[&payload(nth)]).unwrap();
        ends.push(journal.tail());
    }
    ends
}

fn kinds(journal: &Journal) -> Vec<u32> {
    journal.records(0).map(|r| r.kind).collect()
}

/// Whether a byte is one that records consist of, and not what pads them.
fn counts(ends: &[usize], at: usize) -> bool {
    let nth = ends.iter().position(|&end| at < end).unwrap();
    let begin = if nth == 0 { 0 } else { ends[nth - 1] };
    at < begin + RECORD_HEAD + payload(nth).len()
}

#[test]
fn a_whole_journal_is_read_to_its_end() {
    let mut image = Image::new();
    let ends = append(&mut image.journal(), 0..20);
    let mut journal = image.journal();
    assert_eq!(journal.examine(), Found::Whole);
    assert_eq!(journal.tail(), ends[19]);
    // And goes on where it was.
    append(&mut journal, 20..25);
    let mut journal = image.journal();
    assert_eq!(journal.examine(), Found::Whole);
    assert_eq!(kinds(&journal), (0..25).collect::<Vec<u32>>());
}

#[test]
fn a_changed_byte_ends_the_journal_before_its_record() {
    let mut image = Image::new();
    let ends = append(&mut image.journal(), 0..20);
    let word = image.word.load(Relaxed);
    let mut flipped = 0;
    for at in 0..ends[19] {
        if !counts(&ends, at) {
            continue;
        }
        image.flip(at);
        let nth = ends.iter().position(|&end| at < end).unwrap();
        let begin = if nth == 0 { 0 } else { ends[nth - 1] };
        let mut journal = image.journal();
        let tail = ends[19];
        assert_eq!(journal.examine(), Found::Torn { at: begin, tail });
        assert_eq!(journal.tail(), begin);
        assert_eq!(kinds(&journal).len(), nth, "byte {at}");
        // Once cut off it is whole.
        assert_eq!(journal.examine(), Found::Whole);
        image.word.store(word, Relaxed);
        image.flip(at);
        flipped += 1;
    }
    assert!(flipped > 600, "{flipped} bytes");
}

#[test]
fn a_change_of_what_was_durable_is_damage() {
    let mut image = Image::new();
    let mut journal = image.journal();
    let mut ends = append(&mut journal, 0..10);
    journal.made_durable();
    ends.extend(append(&mut journal, 10..20));
    let durable = ends[9];
    for at in (0..durable).filter(|&at| counts(&ends, at)) {
        image.flip(at);
        let before = image.word.load(Relaxed);
        let found = image.journal().examine();
        assert!(
            matches!(found, Found::Damaged { at: begin, durable: d } if begin <= at && d == durable),
            "byte {at}: {found:?}"
        );
        assert_eq!(image.word.load(Relaxed), before, "nothing is cut off");
        image.flip(at);
    }
    image.flip(durable);
    let tail = ends[19];
    let torn = Found::Torn { at: durable, tail };
    assert_eq!(image.journal().examine(), torn);
    // A mark behind the tail contradicts itself.
    let word = image.word.load(Relaxed);
    image.durable.store(word + 8, Relaxed);
    assert!(matches!(image.journal().examine(), Found::Damaged { .. }));
}

#[test]
fn what_an_earlier_interval_wrote_is_not_taken_for_this_ones() {
    let mut image = Image::new();
    append(&mut image.journal(), 0..20);
    let earlier = image.bytes.clone();
    image.published.store(7, Relaxed);
    let mut journal = image.journal();
    let mut ends = Vec::new();
    for nth in 0..20 {
        let other: Vec<u8> = payload(nth).iter().map(|byte| !byte).collect();
        journal.append(nth as u32, &[&other]).unwrap();
        ends.push(journal.tail());
    }
    // The disk has the new tail, and nothing or the first bytes of what is below it.
    for reached in (0..ends[19]).step_by(8) {
        let now = image.bytes.clone();
        image.bytes[reached / 8..].copy_from_slice(&earlier[reached / 8..]);
        let word = image.word.load(Relaxed);
        let mut journal = image.journal();
        journal.examine();
        let whole = ends
            .iter()
            .filter(|&&end| end <= reached.next_multiple_of(8));
        assert_eq!(kinds(&journal).len(), whole.count(), "{reached} bytes");
        image.bytes = now;
        image.word.store(word, Relaxed);
    }
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    // All records are of one size, so that old and new ones lie at the same places.
    let fill = |journal: &mut Journal, with: u8| {
        while journal.tail() < 1024 {
            journal.append(1, &[&[with; 48]]).unwrap();
        }
    };
    let mut image = Image::new();
    fill(&mut image.journal(), b'a');
    image.flip(300);
    let mut journal = image.journal();
    assert_eq!(
        journal.examine(),
        Found::Torn {
            at: 256,
            tail: 1024
        }
    );
    let old = image.bytes.clone();
    fill(&mut image_journal(&mut image), b'b');
    // Power is lost again: the new tail is there, of the new records the first two.
    image.bytes[384 / 8..].copy_from_slice(&old[384 / 8..]);
    let mut journal = image.journal();
    assert_eq!(
        journal.examine(),
        Found::Torn {
            at: 384,
            tail: 1024
        }
    );
}

/// As the next worker does it: examined, then appended to.
fn image_journal(image: &mut Image) -> Journal {
    let mut journal = image.journal();
    assert_eq!(journal.examine(), Found::Whole);
    journal
}

/// In memory nothing is lost, so what is not there was damaged.
fn in_memory(image: &mut Image) -> Journal {
    let words = Words {
        word: &raw const image.word,
        durable: &raw const image.durable,
        published: &raw const image.published,
    };
    // SAFETY: the image outlives the journal.
    unsafe { Journal::new(image.bytes.as_mut_ptr().cast(), LEN, words, false) }
}

#[test]
fn in_memory_every_record_must_be_there() {
    let mut image = Image::new();
    let ends = append(&mut in_memory(&mut image), 0..20);
    for at in (0..ends[19]).filter(|&at| counts(&ends, at)) {
        image.flip(at);
        let found = in_memory(&mut image).examine();
        assert!(matches!(found, Found::Damaged { durable, .. } if durable == ends[19]));
        image.flip(at);
    }
    assert_eq!(in_memory(&mut image).examine(), Found::Whole);
}

#[test]
fn records_say_how_far_they_go_whatever_became_of_the_word() {
    let mut image = Image::new();
    let ends = append(&mut in_memory(&mut image), 0..20);
    let word = image.word.load(Relaxed);
    for bit in 0..64 {
        image.word.store(word ^ 1 << bit, Relaxed);
        let mut journal = in_memory(&mut image);
        match journal.examine() {
            Found::Whole => assert_eq!(kinds(&journal), (0..20).collect::<Vec<u32>>()),
            found => assert!(matches!(found, Found::Damaged { at, .. } if at == ends[19])),
        }
    }
    image.word.store(0, Relaxed);
    let mut journal = in_memory(&mut image);
    assert_eq!(journal.examine(), Found::Whole);
    append(&mut journal, 20..22);
    assert_eq!(kinds(&journal).len(), 22);
    // Of another interval they are void.
    image.published.store(7, Relaxed);
    let mut journal = in_memory(&mut image);
    assert_eq!((journal.examine(), journal.tail()), (Found::Whole, 0));
}
