//! Second names: what is unlinked or replaced keeps one until the next commit.

use super::*;

/// Before the last name of a file may go: gives it a second one.
pub fn keep(path: &[u8], z: &[u8]) {
    let Ok(st) = Stat::of_path(z.as_ptr()) else {
        return;
    };
    let p = &mut engine().undo;
    if st.kind() == S_IFDIR {
        return;
    }
    if p.kept == MAX_KEPT {
        crate::commit::commit(crate::machine::entry::local());
    }
    p.victim = (st.dev, st.ino);
    let dir = engine().high_fd(high_fd::RUN_DIR);
    let head = FileHead {
        dev: st.dev,
        ino: st.ino,
        ..NO_HEAD
    };
    append_path(record::UNLINKED, &head, path, b"");
    const AT_FDCWD: isize = -100;
    let r = sys!(
        LINKAT,
        AT_FDCWD,
        z.as_ptr(),
        dir,
        kept_name(st.ino).as_ptr(),
        0
    );
    if !failed(r) || r == -EEXIST {
        p.files[p.kept] = (st.dev, st.ino);
        p.kept += 1;
    } else if !keep_by_image(path, z, &st) {
        keep_beside(path, z, &st);
    }
}

/// The run's directory is on another file system: a name beside an image, if that is
/// on the right one.
fn keep_by_image(path: &[u8], z: &[u8], st: &Stat) -> bool {
    const AT_FDCWD: isize = -100;
    let p = &mut engine().undo;
    if p.beside_len == p.beside.len() {
        return false;
    }
    let linked = |name: &[u8; 256]| {
        let r = sys!(LINKAT, AT_FDCWD, z.as_ptr(), AT_FDCWD, name.as_ptr(), 0);
        !failed(r) || r == -EEXIST
    };
    let mut names = (0..nameless::PLACES).filter_map(|place| nameless::beside(st.ino, place));
    let Some(name) = names.find(linked) else {
        return false;
    };
    let head = FileHead {
        dev: st.dev,
        ino: st.ino,
        at: u64::MAX,
        ..NO_HEAD
    };
    append_path(record::UNLINKED, &head, path, nameless::text(&name));
    p.beside[p.beside_len] = name;
    p.beside_len += 1;
    true
}

/// The run's directory is on another file system: a hidden name beside.
fn keep_beside(path: &[u8], z: &[u8], st: &Stat) {
    let p = &mut engine().undo;
    if p.beside_len == p.beside.len() {
        crate::commit::commit(crate::machine::entry::local());
    }
    let mut name = [0u8; 256];
    let slash = path.iter().rposition(|&b| b == b'/').unwrap_or(0) + 1;
    let tag = b".dcrun-";
    let number = kept_name(p.beside_len as u64);
    let pid = kept_name(state().root.pid as u64);
    if slash + 40 > 255 {
        return;
    }
    let mut at = 0;
    for part in [
        &path[..slash],
        &tag[..],
        &pid[15..25],
        b"-",
        &number[19..25],
    ] {
        name[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    const AT_FDCWD: isize = -100;
    append_path(
        record::UNLINKED,
        &FileHead {
            dev: st.dev,
            ino: st.ino,
            at: u64::MAX,
            ..NO_HEAD
        },
        path,
        &name[..at],
    );
    let r = sys!(LINKAT, AT_FDCWD, z.as_ptr(), AT_FDCWD, name.as_ptr(), 0);
    if failed(r) {
        crate::say!(
            "a file that is removed cannot be kept for a rollback (error {})",
            -r
        );
        return;
    }
    p.beside[p.beside_len] = name;
    p.beside_len += 1;
}
