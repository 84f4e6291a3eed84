//! Opens for processes of a run what they may not open themselves.
//!
//! A child of a process that has given up its rights has none with which to make its image, nor
//! to open its own page map in /proc. It asks the keeper for them when it is to be committed for
//! the first time ([`dc_image::opened`]). The kernel tells who asks, for such a process may write
//! into all that it shares with the keeper; and it gets an image that is new, never one that is
//! there.
//!
//! What the keeper opens would for a moment be a descriptor of the program, with which it shares
//! its table. So the thread that answers has a table of its own, with nothing in it but its socket
//! and the directory of the images.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;

use dc_image::boot::high_fd;
use dc_image::opened::{ANSWER_LEN, QUESTION_LEN};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};

use crate::keeper::Keeper;
use crate::machine::shared::SharedLive;
use crate::machine::{descriptors, process};
use crate::message::{Doing, Outcome};

/// Enough for what the thread does.
const STACK: usize = 128 << 10;

/// Starts the thread, if processes of this run can have fewer rights than others.
pub fn start(keeper: &Keeper) -> Outcome<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let doing = || "wait for processes that may not open their images".to_owned();
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (own, theirs) = socketpair(AddressFamily::Unix, kind, None, flags)
        .map_err(io::Error::from)
        .doing(doing)?;
    setsockopt(&own, sockopt::PassCred, &true)
        .map_err(io::Error::from)
        .doing(doing)?;
    descriptors::place(theirs, keeper.reservation.number(high_fd::ASK)).doing(doing)?;
    let image = keeper.record.image.file_name().unwrap_or_default();
    let opener = Opener {
        asked: own.into_raw_fd(),
        images: keeper.reservation.number(high_fd::IMAGES),
        image: image.to_owned().into(),
        live: SharedLive::map(keeper.image.as_fd()).doing(doing)?,
    };
    let (asked, (tell, told)) = (opener.asked, mpsc::channel());
    let thread = std::thread::Builder::new().stack_size(STACK);
    let begun = thread.spawn(move || {
        let apart = opener.leave_table();
        let is_apart = apart.is_ok();
        let _ = tell.send(apart);
        if is_apart {
            opener.serve();
        }
    });
    let apart = begun.and_then(|_| told.recv().unwrap_or(Err(io::ErrorKind::BrokenPipe.into())));
    descriptors::close(asked);
    apart.doing(doing)
}

struct Opener {
    /// Numbers in the thread's own table.
    asked: RawFd,
    images: RawFd,
    /// Name of the run's image, which those of its processes have with a suffix.
    image: PathBuf,
    live: SharedLive,
}

/// Who asks, and where the answer goes.
struct Question {
    entry: u32,
    process: i32,
    answers: OwnedFd,
}

impl Opener {
    /// From here on the calling thread has a table of descriptors for itself.
    fn leave_table(&self) -> io::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
        let first = self.asked.min(self.images);
        let second = self.asked.max(self.images);
        descriptors::close_range(0, first - 1);
        descriptors::close_range(first + 1, second - 1);
        descriptors::close_range(second + 1, RawFd::MAX);
        Ok(())
    }

    fn serve(&self) {
        loop {
            match self.receive() {
                Ok(Some(question)) => answer(&question, self.open(&question)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// A question, if it is one.
    fn receive(&self) -> io::Result<Option<Question>> {
        let mut bytes = [0u8; QUESTION_LEN];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut room = nix::cmsg_space!([RawFd; 1], nix::sys::socket::UnixCredentials);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let came = recvmsg::<UnixAddr>(self.asked, &mut parts, Some(&mut room), flags)?;
        let (mut process, mut answers) = (0, Vec::new());
        for part in came.cmsgs()? {
            match part {
                ControlMessageOwned::ScmCredentials(who) => process = who.pid(),
                ControlMessageOwned::ScmRights(numbers) => {
                    answers.extend(numbers.into_iter().map(descriptors::take));
                }
                _ => {}
            }
        }
        let len = came.bytes;
        Ok(answers
            .pop()
            .filter(|_| len == QUESTION_LEN)
            .map(|answers| Question {
                entry: u32::from_ne_bytes(bytes),
                process,
                answers,
            }))
    }

    /// An image for a process of the run, and its files in /proc.
    fn open(&self, question: &Question) -> io::Result<Vec<File>> {
        let Question { entry, process, .. } = *question;
        let known = self.live.processes().get(entry as usize);
        let is_its_own = known.is_some_and(|p| p.real.load(SeqCst) == process);
        if entry == 0 || !is_its_own || !process::is_own_child(process) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let beside = OpenOptions::new().read(true).clone();
        let about = |name| beside.open(format!("/proc/{process}/{name}"));
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{process}/mem"))?;
        let mut opened = vec![self.new_image(entry)?, about("pagemap")?, memory];
        opened.extend(about("io"));
        Ok(opened)
    }

    fn new_image(&self, entry: u32) -> io::Result<File> {
        use nix::fcntl::{OFlag, openat};
        use nix::sys::stat::Mode;
        use nix::unistd::{UnlinkatFlags, unlinkat};
        let mut name = self.image.clone().into_os_string();
        name.push(format!(".{entry}"));
        let images = descriptors::placed(&self.images);
        match unlinkat(images, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let made = openat(
            images,
            name.as_os_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        )?;
        Ok(made.into())
    }
}

fn answer(question: &Question, opened: io::Result<Vec<File>>) {
    let (errno, files) = match opened {
        Ok(files) => (0, files),
        Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), Vec::new()),
    };
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes: [u8; ANSWER_LEN] = errno.to_ne_bytes();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let with = if files.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    // Whoever is gone meanwhile needs no answer.
    let to = question.answers.as_raw_fd();
    let _ = sendmsg::<UnixAddr>(to, &[IoSlice::new(&bytes)], with, flags, None);
}
