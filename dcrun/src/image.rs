//! The image of a run as a file: made, found again, and checked.
//!
//! The layout is `dc_image::header`'s. The keeper writes the first three pages
//! and nothing else; the file is sparse, and the runtime makes it grow.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dc_image::header::{
    FRAMES_OFFSET, Header, MAGIC, NEWEST_SUFFIX, NOTICE_KEPT, NOTICE_SAID, NOTICES_LEN,
    NOTICES_OFFSET, OWNER_OFFSET, VERSION, checksum,
};

use dc_image::run::{RUN_OFFSET, Run};
use nix::fcntl::{FallocateFlags, fallocate};
use protocols::Protocol;

use crate::cli::{Rio, RioKind};
use crate::machine::process;
use crate::machine::shared::SharedLive;
use crate::message::{Doing, Failure, Outcome};
use crate::run_directory::RunDirectory;
use crate::state_directory;

/// Room for frames that a new image has, before the runtime makes it grow.
const FIRST_CHUNK: usize = 16 << 20;
const NEW_LEN: usize = FRAMES_OFFSET + FIRST_CHUNK;
/// The pages that the keeper writes.
const OWNED_PAGES: usize = NOTICES_OFFSET + NOTICES_LEN;
/// Where an image says what it is called.
const IMAGE_NAME_AT: usize = RUN_OFFSET + offset_of!(Run, image_name);
const IMAGE_NAME_LEN: usize = 256;
const HEADER_LEN: usize = size_of::<Header>();
const CHECKED: usize = offset_of!(Header, checksum);
const ID_AT: usize = offset_of!(Header, id);
const _: () = assert!(CHECKED == 32 && HEADER_LEN == 40);

/// Where a new image of this run goes. In memory its name is unique, so that
/// runs of the same name in two state directories do not meet.
pub fn choose_path(run: &RunDirectory, rio: &Rio) -> Outcome<PathBuf> {
    let file = format!("{}-{}.rio", run.name, unique());
    match (rio.kind, &rio.path) {
        (RioKind::Disk, None) => Ok(run.image()),
        (RioKind::Tmpfs, None) => {
            let directory = memory_directory();
            state_directory::make_private(&directory)?;
            Ok(directory.join(file))
        }
        (RioKind::Pmem, None) => Err(Failure::own(
            "--rio pmem: say where it is mounted (with DAX), as in --rio pmem:/mnt/pmem0",
        )),
        (_, Some(path)) => {
            let path = std::path::absolute(path)
                .doing(|| format!("--rio {rio}: make its path absolute"))?;
            Ok(if path.is_dir() { path.join(file) } else { path })
        }
    }
}

/// Where images in memory lie.
pub fn memory_directory() -> PathBuf {
    PathBuf::from(format!("/dev/shm/dcrun-{}", process::uid()))
}

/// The directory of the run that an image belongs to.
pub fn owner(image: &File) -> Option<PathBuf> {
    let mut page = [0u8; 4096];
    image.read_exact_at(&mut page, OWNER_OFFSET as u64).ok()?;
    let path = page
        .split(|&b| b == 0)
        .next()
        .filter(|path| !path.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// Takes what the runtime has kept for the user while the screen was the program's.
pub fn take_notices(image: &File) -> Vec<String> {
    let mut page = [0u8; NOTICES_LEN];
    if image
        .read_exact_at(&mut page, NOTICES_OFFSET as u64)
        .is_err()
    {
        return Vec::new();
    }
    let mut kept = Vec::new();
    let mut at = 0;
    for notice in page
        .split(|&b| b == 0)
        .take_while(|notice| !notice.is_empty())
    {
        if notice[0] == NOTICE_KEPT {
            kept.push(String::from_utf8_lossy(&notice[1..]).into_owned());
            let _ = image.write_at(&[NOTICE_SAID], (NOTICES_OFFSET + at) as u64);
        }
        at += notice.len() + 1;
    }
    kept
}

/// Makes a new image of the run in the directory `run`; a file that is in the way is replaced if it is an image.
pub fn create(path: &Path, protocol: Protocol, run: &RunDirectory) -> Outcome<File> {
    let says = |what: &str| format!("image {}: {what}", path.display());
    let old = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    if let Ok(old) = old {
        let mut magic = [0u8; 8];
        let is_image = old.read_exact_at(&mut magic, 0).is_ok() && magic == MAGIC;
        let is_empty = old.metadata().is_ok_and(|about| about.len() == 0);
        if !is_image && !is_empty {
            return Err(Failure::own(says(
                "a file that is no image is in the way; name another with --rio KIND:PATH",
            )));
        }
        if let Some(other) = owner_beside(&old, run).filter(|_| is_image) {
            return Err(Failure::own(says(&format!(
                "the image of another run ({}) is in the way; name another with --rio KIND:PATH",
                other.display()
            ))));
        }
        fs::remove_file(path).doing(|| says("replace the old one"))?;
    }
    let _ = fs::remove_file(newest(path));
    // Made under another name: an image that stands there is a whole one.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.new", unique()));
    let unfinished = Path::new(&unfinished);
    let name = path.file_name().unwrap_or_default().as_bytes();
    let made = make(unfinished, protocol, &run.path).and_then(|file| {
        if name.len() >= IMAGE_NAME_LEN {
            return Err("its name is too long; name a shorter one with --rio KIND:PATH".to_owned());
        }
        file.write_all_at(name, IMAGE_NAME_AT as u64)
            .map_err(|error| format!("write its name: {error}"))?;
        fs::rename(unfinished, path).map_err(|error| format!("give it its name: {error}"))?;
        Ok(file)
    });
    made.map_err(|what| {
        let _ = fs::remove_file(unfinished);
        Failure::own(says(&what))
    })
}

/// Twelve letters and digits that no other image has in its name.
fn unique() -> String {
    process::random()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// `Err` says what failed.
fn make(path: &Path, protocol: Protocol, run: &Path) -> Result<File, String> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| format!("make it: {error}"))?;
    file.set_len(NEW_LEN as u64)
        .map_err(|error| format!("give it its length: {error}"))?;
    // These pages are written, not only set to zero: they are mapped, and a
    // store into a page that has no room would be a SIGBUS.
    let mut pages = vec![0u8; OWNED_PAGES];
    let run = run.as_os_str().as_bytes();
    if run.len() >= NOTICES_OFFSET - OWNER_OFFSET {
        return Err("the path of its run's directory is too long".to_owned());
    }
    pages[OWNER_OFFSET..][..run.len()].copy_from_slice(run);
    pages[..HEADER_LEN].copy_from_slice(&header(protocol));
    file.write_all_at(&pages, 0).map_err(|error| {
        format!("write its header; make room there, or choose another place with --rio: {error}")
    })?;
    Ok(file)
}

/// Sees to it that a new image is found again after a loss of power.
pub fn make_durable(file: &File, path: &Path) -> Outcome<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    file.sync_all()
        .and_then(|()| File::open(directory)?.sync_all())
        .doing(|| format!("image {}: write it to its storage", path.display()))
}

/// The directory of another run that an image belongs to, if that is still there:
/// the state directory may have been moved, or be written in another way now.
fn owner_beside(image: &File, run: &RunDirectory) -> Option<PathBuf> {
    owner(image).filter(|owner| !run.is_at(owner) && owner.exists())
}

/// Opens the image of a run; `None` if it is not there.
pub fn open(path: &Path, run: &RunDirectory) -> Outcome<Option<File>> {
    let says = |what: String| format!("image {}: {what}", path.display());
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .clone();
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::own(says(format!("open it: {error}")))),
    };
    let about = file.metadata().doing(|| says("look at it".to_owned()))?;
    if about.uid() != process::uid() {
        return Err(Failure::own(says(format!(
            "it belongs to user {}; a run is resumed by its own user",
            about.uid()
        ))));
    }
    let mut start = [0u8; HEADER_LEN];
    if !about.is_file() || file.read_exact_at(&mut start, 0).is_err() {
        return Err(Failure::own(says(
            "it is corrupt: cut off; --fresh starts over".to_owned(),
        )));
    }
    check(&start).map_err(|flaw| Failure::own(says(flaw)))?;
    if let Some(other) = owner_beside(&file, run) {
        return Err(Failure::own(says(format!(
            "it is the image of another run ({}); --fresh starts over",
            other.display()
        ))));
    }
    // Only what is an image is mended: a damaged record may name any file.
    if about.len() == OWNED_PAGES as u64 {
        // `empty` was cut short; what it had to do is quickly done.
        file.set_len(NEW_LEN as u64)
            .doing(|| says("give it its length".to_owned()))?;
    } else if about.len() < FRAMES_OFFSET as u64 {
        return Err(Failure::own(says(
            "it is corrupt: cut off; --fresh starts over".to_owned(),
        )));
    }
    Ok(Some(file))
}

/// Drops all that was ever committed, but for the keeper's pages.
///
/// The keeper has its beginning mapped, and a thread of it looks there: the file is not made
/// shorter for a moment, where the file system knows holes.
pub fn empty(file: &File) -> Outcome<()> {
    let doing = || "image: empty it".to_owned();
    let mut name = [0u8; IMAGE_NAME_LEN];
    file.read_exact_at(&mut name, IMAGE_NAME_AT as u64)
        .and_then(|()| file.set_len(NEW_LEN as u64))
        .doing(doing)?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let (from, len) = (OWNED_PAGES, NEW_LEN - OWNED_PAGES);
    fallocate(file, flags, from as i64, len as i64)
        .map_err(io::Error::from)
        .or_else(|_| file.set_len(OWNED_PAGES as u64))
        .and_then(|()| file.set_len(NEW_LEN as u64))
        .and_then(|()| file.write_all_at(&name, IMAGE_NAME_AT as u64))
        .doing(doing)
}

/// Removes an image, and what its processes and nameless files have beside it; one that is
/// gone is no error.
pub fn remove(path: &Path) -> Outcome<()> {
    remove_beside(path);
    remove_kept_names(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::own(format!(
            "image {}: remove it: {error}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Where the number of an image's newest commit is kept.
pub fn newest(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".");
    beside.push(NEWEST_SUFFIX);
    beside.into()
}

/// The images of processes that are not the first, and what they share: files with the image's
/// name and a suffix of ours.
pub fn beside(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let is_one = |entry: &fs::DirEntry| {
        entry
            .file_name()
            .as_bytes()
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"."))
            .is_some_and(|suffix| {
                if suffix == NEWEST_SUFFIX.as_bytes() {
                    return true;
                }
                let number = suffix.strip_prefix(b"shared-").unwrap_or(suffix);
                !number.is_empty() && number.iter().all(u8::is_ascii_digit)
            })
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(is_one).map(|entry| entry.path()).collect()
}

/// Removes those.
pub fn remove_beside(path: &Path) {
    for path in beside(path) {
        let _ = fs::remove_file(path);
    }
}

/// `kept-IMAGE-FILE`, as the runtime makes them: a sum of the image's path, and an inode.
fn remove_kept_names(image: &Path) {
    let prefix = format!("kept-{:016x}-", checksum(image.as_os_str().as_bytes()));
    let beside = image.parent().map(Path::to_owned);
    for directory in beside.into_iter().chain([memory_directory()]) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.as_bytes().strip_prefix(prefix.as_bytes());
            if number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Removes an open image by its name, if that is still its name.
pub fn remove_open(image: &File, path: &Path) -> Outcome<()> {
    let place = |about: &fs::Metadata| (about.dev(), about.ino());
    let open = image
        .metadata()
        .doing(|| format!("image {}: look at it", path.display()))?;
    match fs::symlink_metadata(path) {
        Ok(there) if place(&there) == place(&open) => remove(path),
        Ok(_) => Err(Failure::own(format!(
            "image {}: another file stands there now, so it is left alone",
            path.display()
        ))),
        // It is gone, or its directory is: there is nothing to remove.
        Err(_) => Ok(()),
    }
}

/// Maps the live page of an open image.
pub fn live(file: &File) -> Outcome<SharedLive> {
    SharedLive::map(file.as_fd()).doing(|| "image: map its first pages".to_owned())
}

/// Bytes that the image takes in its storage, and its length.
pub fn size(path: &Path) -> Option<(u64, u64)> {
    let about = fs::metadata(path).ok()?;
    Some((about.blocks() * 512, about.len()))
}

/// The number that no other image has.
pub fn id(file: &File) -> io::Result<u64> {
    let mut id = [0u8; 8];
    file.read_exact_at(&mut id, ID_AT as u64)?;
    Ok(u64::from_ne_bytes(id))
}

fn header(protocol: Protocol) -> [u8; HEADER_LEN] {
    let mut bytes = [0u8; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(offset_of!(Header, version), VERSION);
    put(offset_of!(Header, owner_uid), process::uid());
    put(offset_of!(Header, protocol), protocol as u32);
    let random = process::random();
    bytes[ID_AT..ID_AT + 8].copy_from_slice(&random[..8]);
    // 0 is what a record has that knows of none.
    bytes[ID_AT] |= 1;
    let sum = checksum(&bytes[..CHECKED]);
    bytes[CHECKED..].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

/// What is wrong with a header, and what to do.
fn check(bytes: &[u8; HEADER_LEN]) -> Result<(), String> {
    if bytes[..8] != MAGIC {
        return Err("it is corrupt: it does not begin as an image; --fresh starts over".to_owned());
    }
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let version = word(offset_of!(Header, version));
    if version != VERSION {
        return Err(format!(
            "it is an image of another version ({version}, this dcrun writes {VERSION}); resume it \
             with the dcrun that made it, or start over with --fresh"
        ));
    }
    if bytes[CHECKED..] != checksum(&bytes[..CHECKED]).to_ne_bytes() {
        return Err(
            "it is corrupt: its header's checksum is wrong; --fresh starts over".to_owned(),
        );
    }
    let owner = word(offset_of!(Header, owner_uid));
    if owner != process::uid() {
        return Err(format!(
            "it was made by user {owner}; a run is resumed by its own user"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunDirectory {
        RunDirectory {
            name: "x".to_owned(),
            path: "/x".into(),
        }
    }

    #[test]
    fn accepts_its_own_header() {
        assert_eq!(check(&header(Protocol::Cand)), Ok(()));
    }

    #[test]
    fn notices_are_taken_once() {
        let run = run();
        let path = std::env::temp_dir().join(format!("dcrun-notices-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        create(&path, Protocol::Cbndvs, &run).unwrap();
        let file = open(&path, &run).unwrap().unwrap();
        file.write_all_at(b"+said\0-kept\0-more\0", NOTICES_OFFSET as u64)
            .unwrap();
        assert_eq!(take_notices(&file), ["kept", "more"]);
        assert!(take_notices(&file).is_empty());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn tells_flaws_apart() {
        let flaw = |change: &dyn Fn(&mut [u8; HEADER_LEN])| {
            let mut bytes = header(Protocol::Cand);
            change(&mut bytes);
            check(&bytes).unwrap_err()
        };
        assert!(flaw(&|bytes| bytes[0] = 0).contains("corrupt"));
        assert!(flaw(&|bytes| bytes[8] ^= 0xff).contains("another version"));
        assert!(flaw(&|bytes| bytes[20] ^= 1).contains("checksum"));
    }

    #[test]
    fn made_images_open_again() {
        let run = run();
        let path = std::env::temp_dir().join(format!("dcrun-image-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        create(&path, Protocol::Cbndvs, &run).unwrap();
        let file = open(&path, &run).unwrap().unwrap();
        assert_eq!(owner(&file), Some(PathBuf::from("/x")));
        assert!(size(&path).unwrap().0 < 1 << 20, "it is sparse");
        fs::write(&path, b"mine").unwrap();
        assert!(open(&path, &run).is_err());
        assert!(
            create(&path, Protocol::Cbndvs, &run).is_err(),
            "a foreign file is not replaced"
        );
        fs::remove_file(&path).unwrap();
        assert!(open(&path, &run).unwrap().is_none());
    }
}
