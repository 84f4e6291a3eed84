//! The C interface when it is used wrongly: a status, a message that helps, and nothing broken.

use std::ffi::{CStr, CString, c_int, c_void};
use std::path::PathBuf;
use std::ptr::null_mut;

use vista_c::*;

const RAW: c_int = 0;
const HEAP: c_int = 1;
const PAGES: c_int = 2;

struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Image {
        let path = std::env::temp_dir().join(format!("vista-c-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Image(path)
    }

    fn open(&self) -> *mut Vista {
        let path = CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: a C string.
        unsafe { vista_init(path.as_ptr(), 0, 1 << 20) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn message(v: *mut Vista) -> String {
    // SAFETY: a vista or NULL; the string is copied at once.
    unsafe { CStr::from_ptr(vista_error(v)) }
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn each_misuse_has_a_status_and_a_message() {
    let image = Image::new("misuse");
    let v = image.open();
    // SAFETY: `v` is open, and every address is one of a mapped segment or plainly none.
    unsafe {
        let raw = vista_map(v, c"raw".as_ptr(), 8192, null_mut(), RAW);
        let heap = vista_map(v, c"heap".as_ptr(), 1 << 20, null_mut(), HEAP);
        assert!(!raw.is_null() && !heap.is_null(), "{}", message(v));
        let word = raw.cast::<u64>();

        assert_eq!(vista_set_range(v, raw, 8), 2);
        assert!(message(v).contains("begin one first"), "{}", message(v));
        assert_eq!(vista_end_transaction(v), 2);
        assert_eq!(vista_abort_transaction(v), 2);
        assert!(vista_malloc(v, heap, 8).is_null());

        assert_eq!(vista_begin_transaction(v), 0);
        assert_eq!(vista_begin_transaction(v), 1);
        assert!(message(v).contains("does not nest"), "{}", message(v));
        assert_eq!(vista_set_range(v, raw.byte_add(8190), 8), 3);
        assert_eq!(
            vista_set_range(v, (&raw const image).cast_mut().cast(), 8),
            3
        );
        assert_eq!(vista_free(v, raw), 3);
        assert!(vista_malloc(v, raw, 8).is_null());
        assert!(vista_malloc(v, heap, 1 << 30).is_null());
        assert!(message(v).contains("grow the segment"), "{}", message(v));

        assert_eq!(vista_set_range(v, raw, 8), 0);
        *word = 5;
        let block = vista_malloc(v, heap, 100);
        assert_eq!(vista_set_root(v, heap, block), 0);
        assert_eq!(vista_abort_transaction(v), 0);
        assert_eq!((*word, vista_root(v, heap)), (0, null_mut()));

        assert_eq!(vista_grow(v, raw, 1 << 20), 0);
        assert_eq!(vista_grow(v, raw, 4096), 4);
        assert!(message(v).contains("do not shrink"), "{}", message(v));

        assert!(image.open().is_null());
        assert!(
            message(null_mut()).contains("another process"),
            "{}",
            message(null_mut())
        );
        vista_close(v);
        let v = image.open();
        assert!(!v.is_null());
        vista_close(v);
    }
}

#[test]
fn closing_in_a_transaction_aborts_and_pages_need_no_ranges() {
    let image = Image::new("pages");
    let touch = |end: unsafe extern "C" fn(*mut Vista) -> c_int, value: u8| {
        let v = image.open();
        // SAFETY: `v` is open until it is closed, and the segment is a page long.
        unsafe {
            let page = vista_map(v, c"p".as_ptr(), 4096, null_mut::<c_void>(), PAGES).cast::<u8>();
            assert!(!page.is_null(), "{}", message(v));
            let before = *page.add(100);
            assert_eq!(vista_begin_transaction(v), 0);
            *page.add(100) = value;
            assert_eq!(end(v), 0);
            let after = *page.add(100);
            assert_eq!(vista_begin_transaction(v), 0);
            *page.add(100) = 99;
            vista_close(v);
            (before, after)
        }
    };
    assert_eq!(touch(vista_end_transaction, 1), (0, 1));
    assert_eq!(touch(vista_abort_transaction, 2), (1, 1));
    assert_eq!(touch(vista_end_transaction, 3), (1, 3));
}
