//! A recovery has every object as it was at the commit: the one that a descriptor still holds is
//! filled again, another one is made anew.

use super::*;

/// Where the descriptor that a recovery holds an object by is.
fn holder(i: usize) -> i32 {
    engine().high_fd(high_fd::DEFERRED) + i as i32
}

const _: () = assert!(MAX_OBJECTS <= high_fd::DEFERRED_COUNT as usize);

/// At recovery, when the descriptors that were put aside are back: every object as it
/// was at the commit, held by a descriptor until [`settle`].
pub fn restore(warm: bool) {
    for i in 0..MAX_OBJECTS {
        if state().memory_objects[i].used == 0 {
            continue;
        }
        engine().memory.any = true;
        engine().memory.holders = i as i32 + 1;
        let o = &mut state().memory_objects[i];
        let held = if warm { still_there(i, o) } else { None };
        let fd = held.unwrap_or_else(|| make(o));
        sys!(DUP3, fd, holder(i), O_CLOEXEC);
        sys!(CLOSE, fd);
        fill(o, holder(i), held.is_some());
        if failed(map_window(o, holder(i))) {
            cannot(o, "map", -ENOMEM);
        }
        if held.is_none() {
            known_by(i);
        }
    }
}

/// The object itself, if a descriptor has kept it, and it has no seal that it had not.
fn still_there(i: usize, o: &MemoryObject) -> Option<i32> {
    let of_this = |f: &OpenFile| f.kind == Kind::MemFd && f.words[OBJECT] as usize == i + 1;
    let fd = (0..state().root.fd_high as i32).find(|&fd| {
        file_of(fd).is_some_and(|file| of_this(open_file(file)))
            && Stat::of_fd(fd).is_ok_and(|st| (st.dev, st.ino) == (o.dev, o.ino))
    })?;
    if seals_of(fd) != o.seals {
        return None;
    }
    let r = reopened(fd, O_RDWR | O_CLOEXEC);
    (!failed(r)).then_some(r as i32)
}

fn make(o: &MemoryObject) -> i32 {
    let flags = (o.flags as usize | MFD_CLOEXEC | MFD_ALLOW_SEALING) & !MFD_HUGETLB;
    let fd = sys!(MEMFD_CREATE, o.name.as_ptr(), flags);
    if failed(fd) {
        cannot(o, "make", fd);
    }
    fd as i32
}

/// The object is another one for the kernel.
fn known_by(i: usize) {
    let Ok(st) = Stat::of_fd(holder(i)) else {
        return;
    };
    let o = &mut state().memory_objects[i];
    (o.dev, o.ino) = (st.dev, st.ino);
    for k in 0..crate::state::MAX_FILES {
        let f = &mut state().files[k];
        if state().file_refs[k] != 0 && f.kind == Kind::MemFd && f.words[OBJECT] as usize == i + 1 {
            (f.dev, f.ino) = (st.dev, st.ino);
        }
    }
}

/// Size and contents as they were at the commit.
fn fill(o: &MemoryObject, fd: i32, has_others: bool) {
    const F_SEAL_WRITE: u32 = 8;
    const KEEP_SIZE_PUNCH_HOLE: usize = 3;
    let size = Stat::of_fd(fd).map_or(0, |st| st.size);
    if size != o.size {
        let r = limits::lifted(limits::RLIMIT_FSIZE, || sys!(FTRUNCATE, fd, o.size));
        if failed(r) {
            cannot(o, "size", r);
        }
    }
    if has_others && o.seals & F_SEAL_WRITE != 0 {
        // What was sealed before the commit has not changed since.
        return;
    }
    let base = o.base as usize;
    let end = base + (o.size as usize).next_multiple_of(PAGE);
    let mut at = base;
    let empty = |from: usize, to: usize| {
        if has_others && from < to {
            let r = sys!(FALLOCATE, fd, KEEP_SIZE_PUNCH_HOLE, from - base, to - from);
            if failed(r) {
                cannot(o, "empty", r);
            }
        }
    };
    engine().store.for_each_run(base, end, |page, bytes, len| {
        empty(at, page);
        at = page + len;
        let whole = (o.size as usize - (page - base)).min(len);
        let mut done = 0;
        while done < whole {
            let from = bytes.wrapping_add(done);
            let r = sys!(PWRITE64, fd, from, whole - done, page - base + done);
            if r <= 0 {
                cannot(o, "fill", r);
            }
            fatal::count_written(r as usize);
            done += r as usize;
        }
    });
    empty(at, end);
}

fn cannot(o: &MemoryObject, what: &str, r: isize) -> ! {
    let name = core::str::from_utf8(&o.name[..o.name_len as usize]).unwrap_or("?");
    fatal::stop(
        FatalCode::CannotRestore,
        r,
        format_args!(
            "restore the memory behind memfd `{name}` ({} bytes): {what} it: error {}",
            o.size, -r
        ),
    )
}

/// At recovery, for a descriptor or a mapping: another description of an object.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    let i = f.words[OBJECT] as usize - 1;
    let r = reopened(holder(i), f.flags as usize);
    if !failed(r) {
        sys!(LSEEK, r, f.offset, 0);
    }
    r
}

/// At recovery, warm: whether a descriptor means another object than its state says.
pub fn is_other(file: u32, fd: i32) -> bool {
    let f = open_file(file);
    Stat::of_fd(fd).is_ok_and(|st| (st.dev, st.ino) != (f.dev, f.ino))
}

/// At recovery: a description for a mapping.
pub fn for_mapping(file: u32) -> isize {
    sys!(DUP, holder(open_file(file).words[OBJECT] as usize - 1))
}

/// At recovery, when all is mapped: seals, some of which forbid that.
pub fn settle() {
    const F_ADD_SEALS: usize = 1033;
    for i in 0..core::mem::take(&mut engine().memory.holders) as usize {
        let o = &state().memory_objects[i];
        if o.used == 0 {
            continue;
        }
        if seals_of(holder(i)) != o.seals {
            let r = sys!(FCNTL, holder(i), F_ADD_SEALS, o.seals);
            if failed(r) {
                cannot(o, "seal", r);
            }
        }
        sys!(CLOSE, holder(i));
    }
}
