//! Connections within the run that nobody has accepted yet.
//!
//! What was sent lies where nobody can look at it: the other end has no descriptor. So it is
//! noted when it is sent, in the place where what has come to this end would be (nothing can
//! have). Cold, the socket connects again when its listener listens, and sends it again.

use super::facts::socket_of;
use super::pair;
use crate::engine::engine;
use crate::machine::{nr, user};
use crate::object::descriptor::open_file;
use crate::object::output::Call;
use crate::run::shared;
use crate::state::OpenFile;
use core::sync::atomic::Ordering::*;
use dc_image::run::{CONTENTS_LEN, Inside, Shared};
use dc_image::seal::contents_sum;

const NOTHING: Inside = Inside {
    len: 0,
    ends: false,
    is_hung_up: false,
    is_lost: false,
    waits: true,
};

/// Whether an end is connected to a process of the run that has yet to accept it.
fn waits(s: &Shared) -> bool {
    s.pair.load(Relaxed) == 0 && s.listener.load(Relaxed) != 0
}

/// `n` bytes of a call went out through a descriptor.
pub fn sent(fd: i32, call: &Call, n: usize) {
    let Some(file) = socket_of(fd) else { return };
    let Some((at, s)) = shared::of(open_file(file)).filter(|(_, s)| waits(s)) else {
        return;
    };
    let published = engine().store.published();
    // What the interval to come has so far.
    let so_far = s.get(published + 1).map_or(NOTHING, Inside::from_value);
    let from = s.place_at(published + 1);
    let place = s.place_for(published);
    if let Some(from) = from.filter(|&from| from != place) {
        shared::put_inside(at, place, 0, shared::inside(at, from, so_far.len));
    }
    let len = so_far.len + n;
    let is_lost = so_far.is_lost || !copy(at, place, so_far.len, call, n);
    s.moved.store(pair::this_interval(), Relaxed);
    set(
        at,
        s,
        place,
        Inside {
            len,
            is_lost,
            ..NOTHING
        },
    );
}

fn set(at: usize, s: &Shared, place: usize, inside: Inside) {
    let inside = match inside.is_lost {
        true => Inside { len: 0, ..inside },
        false => inside,
    };
    let sum = contents_sum(shared::inside(at, place, inside.len));
    s.set_with(inside.value(), sum, engine().store.published());
}

/// Copies the first `n` bytes of a call behind those that are there; false if there is no
/// room, or they cannot be had.
fn copy(at: usize, place: usize, behind: usize, call: &Call, n: usize) -> bool {
    if behind + n > CONTENTS_LEN {
        return false;
    }
    let mut done = 0;
    each_part(call, |from, len| {
        let len = len.min(n - done);
        let mut bytes = [0u8; 4096];
        for offset in (0..len).step_by(bytes.len()) {
            let bytes = &mut bytes[..(len - offset).min(4096)];
            if !user::read_bytes(from + offset, bytes) {
                return;
            }
            shared::put_inside(at, place, behind + done, bytes);
            done += bytes.len();
        }
    });
    done == n
}

/// Calls `f` with address and length of each buffer of a call.
fn each_part(call: &Call, mut f: impl FnMut(usize, usize)) {
    let a = &call.args;
    let (parts, count) = match call.nr {
        nr::WRITE | nr::SENDTO => return f(a[1], a[2]),
        nr::SENDMSG => match user::read::<[usize; 4]>(a[1]) {
            Some([_, _, parts, count]) => (parts, count),
            None => return,
        },
        _ => (a[1], a[2]),
    };
    for i in 0..count.min(1024) {
        if let Some([at, len]) = user::read::<[usize; 2]>(parts + i * 16) {
            f(at, len);
        }
    }
}

/// Something goes that cannot be sent again: descriptors.
pub fn cannot_be_kept(f: &OpenFile) {
    if let Some((at, s)) = shared::of(f).filter(|(_, s)| waits(s)) {
        lose(at, s);
    }
}

fn lose(at: usize, s: &Shared) {
    let place = s.place_for(engine().store.published());
    set(
        at,
        s,
        place,
        Inside {
            is_lost: true,
            ..NOTHING
        },
    );
}

/// At a warm recovery: what was sent in the interval that was lost is there, and noted
/// nowhere.
pub fn joined(at: usize, s: &Shared) {
    if waits(s) && s.moved.load(Relaxed) >= pair::this_interval() {
        lose(at, s);
    }
}
