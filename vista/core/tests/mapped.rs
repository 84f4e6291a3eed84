//! The core over memory that somebody else mapped, as a process without libc has it: no allocation,
//! no file, no thread; a process that dies is a core that is dropped in the midst.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use rio_core::{At, Mapped, Rio, WINDOWS, Window};
use vista_core::{Core, Fault, Geometry, SegmentInfo, create, meta_len};

const OWNER: u32 = 1;
const LEN: usize = 8192;

struct Memory(Vec<(*mut u8, Layout)>);

impl Memory {
    fn new(lens: &[usize]) -> Memory {
        let pages = lens.iter().map(|&len| {
            let layout = Layout::from_size_align(len, 4096).unwrap();
            // SAFETY: the layout is not empty.
            (unsafe { alloc_zeroed(layout) }, layout)
        });
        Memory(pages.collect())
    }

    fn rio(&self) -> Mapped {
        let mut windows = [Window::NONE; WINDOWS];
        for (window, &(base, layout)) in windows.iter_mut().zip(&self.0) {
            *window = Window {
                base,
                len: layout.size(),
            };
        }
        // SAFETY: the memory outlives every core of these tests, and is theirs alone.
        unsafe { Mapped::new(windows) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for &(base, layout) in &self.0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(base, layout) }
        }
    }
}

fn word(core: &Core<Mapped>, offset: usize) -> u64 {
    let place = core.resolve(At::new(1, offset), 8).unwrap();
    // SAFETY: resolved, and aligned.
    unsafe { place.cast::<u64>().read() }
}

#[test]
fn a_core_dropped_in_a_transaction_is_undone_by_the_next() {
    let geometry = Geometry {
        log_len: LEN,
        owner: OWNER,
    };
    let memory = Memory::new(&[meta_len(&geometry), LEN]);
    create(&memory.rio(), &geometry).unwrap();
    let mut core = Core::open(memory.rio(), OWNER).unwrap();
    let len = LEN as u64;
    let row = SegmentInfo {
        len,
        max_len: len,
        heap_at: len,
        ..SegmentInfo::NONE
    };
    assert_eq!(core.add_segment(row), Ok(1));

    core.begin().unwrap();
    core.write(At::new(1, 64), &7_u64.to_le_bytes()).unwrap();
    core.end().unwrap();
    core.begin().unwrap();
    core.write(At::new(1, 64), &8_u64.to_le_bytes()).unwrap();
    core.set_root(1, At::new(1, 64)).unwrap();
    assert_eq!(core.begin(), Err(Fault::InTransaction));
    assert_eq!((word(&core, 64), core.root(1)), (8, Ok(At::new(1, 64))));

    let core = Core::open(memory.rio(), OWNER).unwrap();
    assert_eq!((word(&core, 64), core.root(1)), (7, Ok(At::NOWHERE)));
    assert_eq!(core.log_tail(), 0);
}

#[test]
fn a_full_log_and_a_wrong_range_leave_the_transaction_usable() {
    let geometry = Geometry {
        log_len: 4096,
        owner: OWNER,
    };
    let memory = Memory::new(&[meta_len(&geometry), LEN]);
    create(&memory.rio(), &geometry).unwrap();
    let mut core = Core::open(memory.rio(), OWNER).unwrap();
    let len = LEN as u64;
    let row = SegmentInfo {
        len,
        max_len: len,
        heap_at: len,
        ..SegmentInfo::NONE
    };
    core.add_segment(row).unwrap();

    core.begin().unwrap();
    assert!(matches!(
        core.set_range(At::new(1, 0), LEN),
        Err(Fault::LogFull { .. })
    ));
    for (at, len) in [
        (At::new(1, LEN), 1),
        (At::new(1, 8), LEN),
        (At::new(0, 0), 8),
    ] {
        assert!(
            matches!(core.set_range(at, len), Err(Fault::Range { .. })),
            "{at}+{len}"
        );
    }
    assert!(matches!(
        core.set_range(At::new(1, 8), usize::MAX),
        Err(Fault::Range { .. })
    ));
    assert!(matches!(
        core.set_range(At::from_word(u64::MAX), 8),
        Err(Fault::Range { .. })
    ));
    core.write(At::new(1, 0), b"good").unwrap();
    core.end().unwrap();
    assert_eq!(core.end(), Err(Fault::NoTransaction));
    assert_eq!(word(&core, 0), u64::from(u32::from_le_bytes(*b"good")));
    assert_eq!(core.rio().window(2).len, 0);
}
