//! Programs of classic BPF, as seccomp(2) takes them: which the kernel would take, and what
//! they answer.
//!
//! ```text
//! instruction   code u16 | jt u8 | jf u8 | k u32
//! machine       A, X, 16 words of memory; it reads the 16 words of struct seccomp_data
//! ```
//!
//! A program has no loops, for it only jumps forward; so it ends.

/// `struct sock_filter`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct seccomp_data`, by its words: number, architecture, address (low, high), six
/// arguments (low, high).
pub type Data = [u32; 16];

/// The longest program.
pub const LONGEST: usize = 4096;
/// The strictest answer.
pub const KILL_PROCESS: u32 = 0x8000_0000;

const MEMORY: usize = 16;

const LOAD: u16 = 0;
const LOAD_X: u16 = 1;
const STORE: u16 = 2;
const STORE_X: u16 = 3;
const ALU: u16 = 4;
const JUMP: u16 = 5;
const TO_X: u16 = 0x07;
const TO_A: u16 = 0x87;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;

/// With [`LOAD`] or [`LOAD_X`]: a constant, a word of the data, of memory, the data's length.
const CONSTANT: u16 = 0;
const OF_DATA: u16 = 0x20;
const OF_MEMORY: u16 = 0x60;
const LENGTH: u16 = 0x80;

/// With [`ALU`] or [`JUMP`]: the operand is X, not the constant.
const BY_X: u16 = 8;

const ADD: u16 = 0;
const SUBTRACT: u16 = 0x10;
const MULTIPLY: u16 = 0x20;
const DIVIDE: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const SHIFT_LEFT: u16 = 0x60;
const SHIFT_RIGHT: u16 = 0x70;
const NEGATE: u16 = 0x80;
const XOR: u16 = 0xa0;

const ALWAYS: u16 = 0;
const IF_EQUAL: u16 = 0x10;
const IF_GREATER: u16 = 0x20;
const IF_GREATER_OR_EQUAL: u16 = 0x30;
const IF_ANY_BIT: u16 = 0x40;

impl Instruction {
    /// Whether seccomp(2) knows such an instruction, whatever stands around it.
    fn is_known(&self) -> bool {
        const LOAD_DATA: u16 = LOAD | OF_DATA;
        const LOAD_MEMORY: u16 = LOAD | OF_MEMORY;
        const LOAD_X_MEMORY: u16 = LOAD_X | OF_MEMORY;
        let k = self.k as usize;
        match self.code {
            LOAD | LOAD_X | TO_X | TO_A | RETURN | RETURN_A => true,
            LOAD_DATA => k < size_of::<Data>() && k.is_multiple_of(4),
            LOAD_MEMORY | LOAD_X_MEMORY | STORE | STORE_X => k < MEMORY,
            code if code & !1 == LENGTH => true,
            code if code & 7 == ALU => match code & !(7 | BY_X) {
                ADD | SUBTRACT | MULTIPLY | OR | AND | XOR => true,
                DIVIDE => code & BY_X != 0 || k != 0,
                SHIFT_LEFT | SHIFT_RIGHT => code & BY_X != 0 || k < 32,
                NEGATE => code & BY_X == 0,
                _ => false,
            },
            code if code & 7 == JUMP => match code & !(7 | BY_X) {
                ALWAYS => code & BY_X == 0,
                IF_EQUAL | IF_GREATER | IF_GREATER_OR_EQUAL | IF_ANY_BIT => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// How far it may jump: both ways, which are one as a rule.
    fn jumps(&self) -> Option<[usize; 2]> {
        match self.code {
            JUMP => Some([self.k as usize; 2]),
            code if code & 7 == JUMP => Some([self.jt.into(), self.jf.into()]),
            _ => None,
        }
    }
}

/// Whether the kernel would take it: known instructions, no jump behind the end, an answer as
/// the last one, and no word of memory read on a way on which it was not written.
pub fn is_sound(program: &[Instruction]) -> bool {
    if program.is_empty() || program.len() > LONGEST {
        return false;
    }
    let ends = |last: &Instruction| matches!(last.code, RETURN | RETURN_A);
    program.last().is_some_and(ends)
        && program.iter().all(Instruction::is_known)
        && reads_what_it_wrote(program)
}

/// Of each instruction it is known which words are written on all ways to it.
fn reads_what_it_wrote(program: &[Instruction]) -> bool {
    let mut on_jumps = [u16::MAX; LONGEST];
    let mut written = 0u16;
    for (at, i) in program.iter().enumerate() {
        written &= on_jumps[at];
        let word = 1u16.checked_shl(i.k).unwrap_or(0);
        match i.code {
            STORE | STORE_X => written |= word,
            code if code & !1 == OF_MEMORY && written & word == 0 => return false,
            _ => {}
        }
        if let Some(ways) = i.jumps() {
            for way in ways {
                let to = at.saturating_add(1).saturating_add(way);
                if to >= program.len() {
                    return false;
                }
                on_jumps[to] &= written;
            }
            // What follows is come to by jumps only.
            written = u16::MAX;
        }
    }
    true
}

/// What a sound program answers.
pub fn run(program: &[Instruction], data: &Data) -> u32 {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY]);
    let mut at = 0;
    while let Some(&Instruction { code, jt, jf, k }) = program.get(at) {
        at += 1;
        // What most programs do most of the time.
        if code == JUMP | IF_EQUAL {
            at += usize::from(if a == k { jt } else { jf });
            continue;
        }
        let operand = if code & BY_X != 0 { x } else { k };
        // (No index is outside of a sound program's.)
        let word = k as usize % MEMORY;
        match code & 7 {
            LOAD | LOAD_X => {
                let value = match code & !7 {
                    CONSTANT => k,
                    OF_DATA => data[(k / 4) as usize % data.len()],
                    OF_MEMORY => memory[word],
                    _ => size_of::<Data>() as u32,
                };
                match code & 7 {
                    LOAD => a = value,
                    _ => x = value,
                }
            }
            STORE => memory[word] = a,
            STORE_X => memory[word] = x,
            ALU => {
                a = match code & !(7 | BY_X) {
                    ADD => a.wrapping_add(operand),
                    SUBTRACT => a.wrapping_sub(operand),
                    MULTIPLY => a.wrapping_mul(operand),
                    DIVIDE => match a.checked_div(operand) {
                        Some(quotient) => quotient,
                        // As the kernel: the program ends, and answers that.
                        None => return 0,
                    },
                    OR => a | operand,
                    AND => a & operand,
                    XOR => a ^ operand,
                    SHIFT_LEFT => a.wrapping_shl(operand),
                    SHIFT_RIGHT => a.wrapping_shr(operand),
                    _ => a.wrapping_neg(),
                }
            }
            JUMP => {
                let is_so = match code & !(7 | BY_X) {
                    IF_EQUAL => a == operand,
                    IF_GREATER => a > operand,
                    IF_GREATER_OR_EQUAL => a >= operand,
                    IF_ANY_BIT => a & operand != 0,
                    _ => {
                        at += k as usize;
                        continue;
                    }
                };
                at += usize::from(if is_so { jt } else { jf });
            }
            _ => match code {
                TO_X => x = a,
                TO_A => a = x,
                RETURN => return k,
                _ => return a,
            },
        }
    }
    KILL_PROCESS
}
