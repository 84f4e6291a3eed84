//! What the keeper opens for a process that may not open it itself.
//!
//! A child is not committed when it is born, and has no image yet. If its parent has given up
//! rights, the child has none either with which to make one beside the run's, nor to open
//! its own page map once the kernel has closed /proc to it (PR_SET_DUMPABLE of prctl(2)). The
//! keeper has them. It is asked by a message which carries a socket for the answer: so nobody
//! else can take what is meant for this process, and the kernel itself tells the keeper who
//! asks.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::sys::{errno::EPIPE, failed};
use crate::object::message::{self, OneBuffer};
use crate::sys;
use dc_image::boot::high_fd;
use dc_image::opened::{ANSWER_LEN, COUNT};

const SOL_SOCKET: u64 = 1;
const SCM_RIGHTS: u64 = 1;
/// `struct cmsghdr`, in words: the length, then level and type.
const CONTROL_HEAD: usize = 16;

/// The descriptors that `dc_image::opened` names, at numbers of the kernel's choice; the last
/// may be missing. An error is the keeper's, or says that it does not answer.
pub fn ask() -> Result<[i32; COUNT], isize> {
    const AF_UNIX: usize = 1;
    const SOCK_SEQPACKET_CLOEXEC: usize = 5 | 0o2000000;
    let mut ends = [0i32; 2];
    let r = sys!(
        SOCKETPAIR,
        AF_UNIX,
        SOCK_SEQPACKET_CLOEXEC,
        0,
        ends.as_mut_ptr()
    );
    if failed(r) {
        return Err(r);
    }
    let [own, answers] = ends;
    let asked = send(answers);
    sys!(CLOSE, answers);
    let answer = match failed(asked) {
        true => Err(asked),
        false => receive(own),
    };
    sys!(CLOSE, own);
    answer
}

/// The process's entry, and with it the socket for the answer.
fn send(answers: i32) -> isize {
    const MSG_NOSIGNAL: usize = 0x4000;
    let entry = engine().slot as u32;
    let part = [&raw const entry as usize, size_of::<u32>()];
    let mut control = [
        (CONTROL_HEAD + 4) as u64,
        SOL_SOCKET | SCM_RIGHTS << 32,
        answers as u64,
    ];
    let header = OneBuffer::new(&part, &mut control);
    let to = engine().high_fd(high_fd::ASK);
    sys!(SENDMSG, to, &raw const header, MSG_NOSIGNAL)
}

fn receive(own: i32) -> Result<[i32; COUNT], isize> {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    let mut answer = [0u8; ANSWER_LEN];
    let part = [answer.as_mut_ptr() as usize, answer.len()];
    let mut control = [0u64; 8];
    let mut header = OneBuffer::new(&part, &mut control);
    let n = sys!(RECVMSG, own, &raw mut header, MSG_CMSG_CLOEXEC);
    if n != ANSWER_LEN as isize {
        return Err(if failed(n) { n } else { -EPIPE });
    }
    let (mut came, mut count) = ([-1; COUNT], 0);
    let len = header.control_len.min(size_of_val(&control));
    // SAFETY: plain words, seen as bytes; the kernel filled the first of them.
    let bytes = unsafe { core::slice::from_raw_parts(control.as_ptr().cast::<u8>(), len) };
    message::each_descriptor(bytes, |fd| {
        if count < COUNT {
            came[count] = fd;
            count += 1;
        } else {
            sys!(CLOSE, fd);
        }
    });
    match i32::from_le_bytes(answer) {
        0 if count >= COUNT - 1 => Ok(came),
        0 => Err(-EPIPE),
        errno => Err(-(errno as isize)),
    }
}
