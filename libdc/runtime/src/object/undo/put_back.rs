//! At recovery: names as they were.
//!
//! Each step first looks what stands where. That the record's deed was never done, or is
//! undone already, is no trouble: the death came before it, or in the middle of an
//! earlier recovery.

use super::attribute::looked_at;
use super::conflict::{Step, Trouble, compares};
use super::kept::{NOREPLACE, is_empty, move_back};
use super::names::{ANEW, NameHead};
use super::place::{AT_FDCWD, O_DIRECTORY, O_NOFOLLOW, Place, open_path};
use super::vault::{is_own_vault, name_in, open_vault};
use super::*;

const AT_REMOVEDIR: usize = 0x200;
const EXCHANGE: usize = 2;

/// The place of a record, if its directory is where it was.
fn place(slot: i32, dev: u64, ino: u64, path: &[u8]) -> Result<Place, Trouble> {
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    Place::found(slot, dev, ino, path).map_err(Trouble::Gone)
}

fn at_its_place(h: &NameHead, path: &[u8]) -> Result<Place, Trouble> {
    place(high_fd::DIRECTORY, h.dev, h.ino, path)
}

/// A name that was made goes, if it is what was made.
pub(super) fn take_away(h: &NameHead, path: &[u8], is_dir: bool, made: Option<(u64, u64)>) -> Step {
    let place = at_its_place(h, path)?;
    let Ok(st) = place.stat() else {
        return Ok(());
    };
    let of = made.or((h.of_ino != 0).then_some((h.of_dev, h.of_ino)));
    match of {
        Some(of) if of != (st.dev, st.ino) => {
            // Its directory was not there when the death came, or somebody has put
            // something else in its place.
            return Err(Trouble::Name(
                "what stands there is not what the program made; somebody else has put it there",
            ));
        }
        // The death came in the middle of the call: it made that, or nobody did.
        None if compares() && !is_new(&place, &st) => {
            return Err(Trouble::Name(
                "something stands there that the program may not have made",
            ));
        }
        _ => {}
    }
    if (st.kind() == S_IFDIR) != is_dir {
        return Err(Trouble::Name("what stands there is of another kind"));
    }
    if is_dir {
        if !is_empty(place.dir, place.name()) {
            return Err(Trouble::Name(
                "the directory that the program made has something in it that it did not make",
            ));
        }
    } else if made.is_some() && h.of_ino == 0 && st.kind() == S_IFREG && st.nlink == 1 {
        // Whatever the program wrote there is undone already.
        if st.size != 0 && compares() {
            return Err(Trouble::Size {
                there: st.size,
                left: 0,
            });
        }
    }
    let flags = if is_dir { AT_REMOVEDIR } else { 0 };
    looked_at(
        sys!(UNLINKAT, place.dir, place.name(), flags),
        "remove what was made",
    )
}

/// Whether something can be what a call under way has just made.
fn is_new(place: &Place, st: &Stat) -> bool {
    let ours = st.uid == sys!(GETEUID) as u32;
    ours && match st.kind() {
        S_IFREG => st.size == 0 && st.nlink == 1,
        S_IFDIR => is_empty(place.dir, place.name()),
        _ => true,
    }
}

/// A name that went is there again.
pub(super) fn give_back(h: &NameHead, path: &[u8], vault: &[u8]) -> Step {
    let place = at_its_place(h, path)?;
    match place.stat() {
        Ok(st) if (st.dev, st.ino) == (h.of_dev, h.of_ino) => return Ok(()),
        Ok(_) => {
            return Err(Trouble::Name(
                "the program removed it, and somebody else has made it anew",
            ));
        }
        Err(_) => {}
    }
    let dir = open_vault(h.other_dev, h.other_ino, vault).map_err(Trouble::Gone)?;
    let kept = name_in(vault, h.of_ino);
    let mut r = sys!(LINKAT, dir, kept.as_ptr(), place.dir, place.name(), 0);
    if failed(r) && r != -EEXIST {
        r = move_back(&place, dir, &kept);
    }
    looked_at(r, "give the removed file its name again")
}

/// A directory that went is there again.
pub(super) fn give_directory_back(h: &NameHead, path: &[u8], vault: &[u8]) -> Step {
    let place = at_its_place(h, path)?;
    if let Ok(st) = place.stat() {
        return if st.kind() == S_IFDIR && (h.more & ANEW != 0 || st.ino == h.of_ino) {
            Ok(())
        } else {
            Err(Trouble::Name(
                "the program removed the directory, and somebody else has made something there",
            ))
        };
    }
    if h.more & ANEW == 0 {
        let dir = open_vault(h.other_dev, h.other_ino, vault).map_err(Trouble::Gone)?;
        let kept = name_in(vault, h.of_ino);
        let r = move_back(&place, dir, &kept);
        return looked_at(r, "put the removed directory back");
    }
    looked_at(
        sys!(MKDIRAT, place.dir, place.name(), 0o700),
        "make the removed directory again",
    )?;
    let flags = O_DIRECTORY | O_NOFOLLOW;
    let fd = open_path(place.dir, place.name(), flags, high_fd::OBJECT).map_err(Trouble::Gone)?;
    let (uid, gid) = (h.owner >> 32, h.owner & 0xffff_ffff);
    let name = c"".as_ptr();
    const AT_EMPTY_PATH: usize = 0x1000;
    looked_at(
        sys!(FCHOWNAT, fd, name, uid, gid, AT_EMPTY_PATH),
        "give it back to its owner",
    )?;
    let mode = h.more & 0o7777;
    looked_at(
        sys!(FCHMODAT2, fd, name, mode, AT_EMPTY_PATH),
        "set its mode",
    )
}

/// A rename goes back.
pub(super) fn rename_back(h: &NameHead, from: &[u8], to: &[u8]) -> Step {
    let old = at_its_place(h, from)?;
    let new = place(high_fd::OTHER_DIRECTORY, h.other_dev, h.other_ino, to)?;
    let of = (h.of_dev, h.of_ino);
    let is = |place: &Place| place.stat().ok().map(|st| (st.dev, st.ino));
    if h.more != 0 {
        return match (is(&old), is(&new)) {
            (Some(a), Some(b)) if a == of && b.1 == h.more => Ok(()),
            (Some(a), Some(b)) if b == of && a.1 == h.more => looked_at(
                sys!(
                    RENAMEAT2,
                    old.dir,
                    old.name(),
                    new.dir,
                    new.name(),
                    EXCHANGE
                ),
                "exchange the two files back",
            ),
            _ => Err(Trouble::Name(
                "the program exchanged it with another file, and somebody else has moved one",
            )),
        };
    }
    if is(&old) == Some(of) {
        return Ok(());
    }
    if is(&new) != Some(of) {
        return Err(Trouble::Name(
            "the program renamed it, and somebody else has moved or removed it since",
        ));
    }
    let r = sys!(
        RENAMEAT2,
        new.dir,
        new.name(),
        old.dir,
        old.name(),
        NOREPLACE
    );
    if r == -EEXIST {
        return Err(Trouble::Name(
            "the program renamed it, and somebody else has made another one in its place",
        ));
    }
    if r == -EINVAL {
        // Some file systems know no flags.
        let r = sys!(RENAMEAT, new.dir, new.name(), old.dir, old.name());
        return looked_at(r, "rename it back");
    }
    looked_at(r, "rename it back")
}

/// At the end of a rollback: what has its name again needs ours no longer.
pub(super) fn drop_kept(h: &NameHead, vault: &[u8], is_dir: bool) {
    if is_dir || open_without_name(h.of_dev, h.of_ino).is_some() {
        return drop_vault(vault);
    }
    if let Ok(dir) = open_vault(h.other_dev, h.other_ino, vault) {
        sys!(UNLINKAT, dir, name_in(vault, h.of_ino).as_ptr(), 0);
    }
    drop_vault(vault);
}

/// It goes if nothing is left in it.
fn drop_vault(vault: &[u8]) {
    if is_own_vault(vault) {
        sys!(UNLINKAT, AT_FDCWD, vault.as_ptr(), AT_REMOVEDIR);
    }
}
