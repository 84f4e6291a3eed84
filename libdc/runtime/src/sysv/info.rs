//! The commands of shmctl, semctl and msgctl that are about all objects of a family, by
//! which `ipcs` lists them: limits, what is in use, and an object by its place.

use super::room::OBJECTS;
use super::*;
use dc_image::window::PAGE;

const IPC_INFO: usize = 3;

/// What a command asks for.
#[derive(Clone, Copy)]
pub enum Asks {
    Limits,
    InUse,
    /// The status of the object at a place; whether that needs the right to read it.
    Place {
        checked: bool,
    },
}

/// The commands of a family in the order of [`Asks`]: INFO, STAT, STAT_ANY.
pub fn asks(family: Family, command: usize) -> Option<Asks> {
    let [info, stat, any] = match family {
        Family::Memory => [14, 13, 15],
        Family::Semaphores => [19, 18, 20],
        Family::Queues => [12, 11, 13],
    };
    match command {
        IPC_INFO => Some(Asks::Limits),
        c if c == info => Some(Asks::InUse),
        c if c == stat => Some(Asks::Place { checked: true }),
        c if c == any => Some(Asks::Place { checked: false }),
        _ => None,
    }
}

fn in_use(family: Family) -> impl Iterator<Item = &'static Object> {
    let all = room().objects[family as usize].iter();
    all.filter(|o| o.used == MADE)
}

/// Limits and sums: the answer is the highest place in use.
pub fn answer(family: Family, asks: Asks, at: usize) -> isize {
    let ok = match (family, asks) {
        (Family::Memory, Asks::Limits) => {
            const BYTES_MOST: u64 = u64::MAX - (1 << 24);
            user::write(
                at,
                &[
                    BYTES_MOST,
                    1,
                    OBJECTS as u64,
                    OBJECTS as u64,
                    BYTES_MOST,
                    0,
                    0,
                    0,
                    0,
                ],
            )
        }
        (Family::Memory, _) => {
            let pages = in_use(family).map(|o| o.size.div_ceil(PAGE as u64)).sum();
            let count = in_use(family).count() as u64;
            user::write(at, &[count, pages, pages, 0, 0, 0])
        }
        (Family::Semaphores, asks) => {
            let [sets, each] = [OBJECTS as u32, semaphore::SETS_MOST as u32];
            let (ops, value) = (semaphore::OPS_MOST as u32, semaphore::VALUE_MOST as u32);
            let all = sets * each;
            let last = match asks {
                Asks::Limits => [20, value, value],
                _ => {
                    let count: u64 = in_use(family).map(|o| o.size).sum();
                    [in_use(family).count() as u32, value, count as u32]
                }
            };
            user::write(
                at,
                &[
                    all, sets, all, all, each, ops, ops, last[0], last[1], last[2],
                ],
            )
        }
        (Family::Queues, asks) => {
            let (message, queue) = (queue::MESSAGE_MOST as u32, queue::QUEUE_MOST as u32);
            let count = OBJECTS as u32;
            let [pool, map, total] = match asks {
                Asks::Limits => [count * (queue / 1024), queue, queue],
                _ => {
                    let messages: u32 = in_use(family).map(|o| o.count).sum();
                    let bytes: u32 = in_use(family).map(|o| o.bytes).sum();
                    [in_use(family).count() as u32, messages, bytes]
                }
            };
            user::write(at, &[pool, map, message, queue, count, 16, total, 0xffff])
        }
    };
    match ok {
        true => in_use(family)
            .map(|o| index_of(family, o))
            .max()
            .unwrap_or(0) as isize,
        false => -EFAULT,
    }
}

/// The id of the object at a place, and the object.
pub fn at_place(
    family: Family,
    place: usize,
    checked: bool,
) -> Result<(isize, &'static mut Object), isize> {
    let place = place as u32 as usize;
    let o = room().objects[family as usize]
        .get_mut(place)
        .filter(|o| o.used == MADE);
    let o = o.ok_or(-EINVAL)?;
    if checked && !permits(o, READ) {
        return Err(-EACCES);
    }
    Ok((id_of(family, o), o))
}
