//! Where a program wants a message: what it gave to recvfrom(2) or recvmsg(2), and
//! how it gets what has come.

use super::message::{Message, NAME};
use crate::engine::engine;
use crate::machine::sys::errno::*;
use crate::machine::user;

/// Of a `struct msghdr`.
const HEADER_LEN: usize = 56;

#[derive(Clone, Copy)]
pub struct Want {
    pub fd: i32,
    pub flags: usize,
    pub name: usize,
    pub name_room: usize,
    control: usize,
    pub control_room: usize,
    /// Its msghdr, or 0 for recvfrom.
    header: usize,
    /// recvfrom: where the length of the name goes.
    name_len: usize,
    /// iovecs, or one buffer.
    pub parts: usize,
    pub count: usize,
    pub buffer: [usize; 2],
    pub len: usize,
}

impl Want {
    pub fn recvfrom(a: [usize; 6]) -> Option<Want> {
        let name_room = match a[4] {
            0 => 0,
            _ => user::read::<u32>(a[5])? as usize,
        };
        Some(Want {
            fd: a[0] as i32,
            flags: a[3],
            name: a[4],
            name_room,
            control: 0,
            control_room: 0,
            header: 0,
            name_len: a[5],
            parts: 0,
            count: 1,
            buffer: [a[1], a[2]],
            len: a[2],
        })
    }

    pub fn recvmsg(a: [usize; 6]) -> Option<Want> {
        let [name, name_room, parts, count, control, control_room, _] =
            user::read::<[usize; 7]>(a[1])?;
        let mut want = Want {
            fd: a[0] as i32,
            flags: a[2],
            name,
            name_room: if name == 0 {
                0
            } else {
                name_room & 0xffff_ffff
            },
            control,
            control_room: if control == 0 { 0 } else { control_room },
            header: a[1],
            name_len: 0,
            parts,
            count,
            buffer: [0; 2],
            len: 0,
        };
        for i in 0..count.min(1024) {
            want.len = want.len.saturating_add(want.part(i)?[1]);
        }
        Some(want)
    }

    /// Address and length of a buffer.
    fn part(&self, nth: usize) -> Option<[usize; 2]> {
        match self.parts {
            0 => Some(self.buffer),
            at => user::read(at + nth * 16),
        }
    }

    /// What sleeps cannot be written to.
    pub fn wake(&self) {
        let e = engine();
        if !e.pieces.any() && !e.shared.any() {
            return;
        }
        let mut wake = |at: usize, len| {
            let end = at.saturating_add(len);
            e.pieces.wake(at, end);
            crate::space::shared::open(at, end);
        };
        for i in 0..self.count {
            if let Some([to, len]) = self.part(i) {
                wake(to, len);
            }
        }
        wake(self.name, self.name_room.min(NAME));
        wake(self.name_len, 4);
        wake(self.control, self.control_room);
        wake(self.header, HEADER_LEN);
    }

    /// What tells this call from another.
    pub fn sum(&self) -> u64 {
        (self.fd as u64) << 48 ^ (self.control_room as u64) << 32 ^ self.len as u64
    }

    /// Gives the program a message; what its call returns.
    pub fn give(&self, m: &Message) -> isize {
        let mut at = 0;
        let mut ok = true;
        self.wake();
        for i in 0..self.count {
            let Some([to, len]) = self.part(i) else {
                return -EFAULT;
            };
            let n = len.min(m.data.len() - at);
            ok &= n == 0 || user::write_bytes(to, &m.data[at..at + n]);
            at += n;
        }
        if self.name != 0 {
            let n = m.name.len().min(self.name_room);
            ok &= n == 0 || user::write_bytes(self.name, &m.name[..n]);
        }
        if self.header == 0 {
            ok &= self.name == 0 || user::write(self.name_len, &(m.name.len() as u32));
        } else {
            let n = m.control.len().min(self.control_room);
            ok &= n == 0 || user::write_bytes(self.control, &m.control[..n]);
            if self.name != 0 {
                ok &= user::write(self.header + 8, &(m.name.len() as u32));
            }
            ok &= user::write(self.header + 40, &n);
            ok &= user::write(self.header + 48, &m.flags);
        }
        if ok { m.len as isize } else { -EFAULT }
    }
}
