//! Warm: numbers that the lost interval has closed for good.
//!
//! The end of a pipe, a socket or a terminal is closed at once, for others notice it: right
//! behind a commit that is made for that (`descriptor::needed`), so whoever comes back to it
//! makes the call again. Until then the table has a number under which nothing is, or what the
//! lost interval had made next. Whatever looks into what this process has would look there, and
//! a commit would keep for all what it saw. So a descriptor stands there that is good for
//! nothing: every use of it fails with EBADF, as of one that is closed.

use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::object::descriptor::{any_fd, is_there, known_file, open_file};
use crate::object::socket::pair;
use crate::run::shared;
use crate::{reserved, sys};
use dc_image::boot::high_fd;

/// Puts something in their place.
pub fn fill_gaps() {
    const O_PATH_CLOEXEC: usize = 0o10000000 | 0o2000000;
    let mut place = None;
    for fd in 0..state().root.fd_high as i32 {
        let Some(file) = known_file(fd).filter(|&file| !is_there(file, fd)) else {
            continue;
        };
        let place = *place.get_or_insert_with(|| {
            let r = sys!(OPEN, c"/".as_ptr(), O_PATH_CLOEXEC);
            match failed(r) {
                true => r as i32,
                false => reserved::move_high(r, high_fd::SCRATCH),
            }
        });
        sys!(DUP3, place, fd, 0o2000000);
        if let Some((_, s)) = shared::of(open_file(file))
            && any_fd(file) == Some(fd)
        {
            // Another one is to look there.
            pair::left_by_holder(s);
        }
    }
    if place.is_some() {
        sys!(CLOSE, engine().high_fd(high_fd::SCRATCH));
    }
}
