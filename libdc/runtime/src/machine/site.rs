//! What stands before a `syscall`: which of it may run at another place.
//!
//! From its end alone nobody can tell where an instruction begins, and what looks
//! like one may be the end of a longer one. One that loads the number proves
//! itself by the number that is in rax. Of the others it is known what code that
//! makes a system call does last: it moves arguments. So the last instruction is
//! taken for what it looks like if the one before it looks like such a move as
//! well (six bytes and more would have to be a constant by chance), and if there
//! is no other way to see it.

use super::user;

/// `syscall`.
pub const CALL_LEN: usize = 2;
/// The longest that may move.
const LONGEST: usize = 7;
/// Two of them.
const LOOK_BACK: usize = 2 * LONGEST;

/// How long the instruction before the `syscall` at `site` is, if it may move.
pub fn moved(site: usize, number: usize) -> Option<usize> {
    let mut call = [0u8; CALL_LEN];
    if !user::read_bytes(site, &mut call) || call != [0x0f, 0x05] {
        return None;
    }
    let mut code = [0u8; LOOK_BACK];
    // The text may begin a few bytes before.
    let known = [LOOK_BACK, 8, 6]
        .into_iter()
        .find(|&known| user::read_bytes(site - known, &mut code[LOOK_BACK - known..]))?;
    let code = &code[LOOK_BACK - known..];
    if let Some(len) = loads(code, number) {
        return Some(len);
    }
    let mut possible = (2..=LONGEST).filter(|&len| is_behind_another(code, len));
    match (possible.next(), possible.next()) {
        (Some(len), None) => Some(len),
        _ => None,
    }
}

fn is_behind_another(code: &[u8], len: usize) -> bool {
    is_move(code, len)
        && (2..=LONGEST)
            .any(|before| before + len >= 6 && is_move(&code[..code.len() - len], before))
}

/// Whether the code ends by putting this number into rax.
fn loads(code: &[u8], number: usize) -> Option<usize> {
    let constant = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize == number;
    match code {
        // mov rax, nr
        [.., 0x48, 0xc7, 0xc0, a, b, c, d] if constant(&[*a, *b, *c, *d]) => Some(7),
        // mov eax, nr
        [.., prefix, 0xb8, a, b, c, d] if constant(&[*a, *b, *c, *d]) && !is_rex(*prefix) => {
            Some(5)
        }
        // xor eax, eax: read(2) is number 0
        [.., prefix, 0x31, 0xc0] if number == 0 && !is_rex(*prefix) => Some(2),
        _ => None,
    }
}

/// Whether the code may end with a move of an argument of this length; one that
/// does not ask where it stands.
fn is_move(code: &[u8], len: usize) -> bool {
    let Some(at) = code.len().checked_sub(len) else {
        return false;
    };
    match code[at..] {
        // mov or xor r32, r32
        [0x31 | 0x89, 0xc0..=0xff] => true,
        [0x41 | 0x44 | 0x45, 0x31 | 0x89, 0xc0..=0xff] => true,
        // mov r64, r64
        [0x48 | 0x49 | 0x4c | 0x4d, 0x89, 0xc0..=0xff] => true,
        // xor sil, imm8: how glibc makes the operation of a futex
        [0x40, 0x80, 0xf6, _] => true,
        // mov [rsp+8], r; mov r, [rsp+8]; lea r, [rsp+8]
        [0x48 | 0x4c, 0x89 | 0x8b | 0x8d, operands, 0x24, _] => operands & 0xc7 == 0x44,
        // mov r32, imm32
        [0xb8 | 0xba | 0xbe | 0xbf, _, _, _, _] => true,
        [0x41, 0xb8..=0xba, _, _, _, _] => true,
        // mov r64, imm32
        [0x48 | 0x49, 0xc7, 0xc0..=0xc7, _, _, _, _] => true,
        _ => false,
    }
}

fn is_rex(byte: u8) -> bool {
    byte & 0xf0 == 0x40
}
