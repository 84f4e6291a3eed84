//! Programs that are left to themselves: a Go program, static C programs, xz and the compiler proper.

use crate::session::{Channel, Program, Session, Stream};
use std::fmt::Write;

pub fn go() -> Session {
    let program = Program::Go {
        name: "crew",
        source: include_str!("../../programs/crew.go"),
    };
    Session::new(
        "go",
        "goroutines, channels, timers and collections, through a pipe",
        program,
    )
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .patience_s(60)
    .expect("round 20 ")
    .strike()
    .expect("end ")
}

const LEDGER: &str = include_str!("../../programs/ledger.c");

pub fn static_musl() -> Session {
    let compiler = &["/usr/bin/musl-gcc", "-O2", "-static"];
    ledger(
        "static-musl",
        Program::C {
            name: "ledger-musl",
            source: LEDGER,
            compiler,
        },
    )
}

pub fn static_glibc() -> Session {
    let compiler = &["/usr/bin/gcc", "-O2", "-static", "-no-pie"];
    ledger(
        "static-glibc",
        Program::C {
            name: "ledger-glibc",
            source: LEDGER,
            compiler,
        },
    )
}

fn ledger(name: &'static str, program: Program) -> Session {
    Session::new(
        name,
        "a static C program with a heap and a file, output into a file",
        program,
    )
    .channel(Channel::File)
    .stream(Stream::Exact)
    .patience_s(60)
}

pub fn xz() -> Session {
    Session::new(
        "xz",
        "xz -9 on a large file",
        Program::Installed("/usr/bin/xz"),
    )
    .args(["-9", "-k", "-T1", "prose.txt"])
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .file("prose.txt", prose)
    .interval_ms(50)
    .patience_s(180)
}

/// 24 MB that compress neither well nor badly: words of a small vocabulary, numbers, some
/// noise, and much that stood there before.
fn prose() -> Vec<u8> {
    let mut chance = crate::chance::Chance::new(1999);
    let vocabulary: Vec<String> = (0..3000)
        .map(|_| {
            let len = 2 + chance.below(9);
            (0..len)
                .map(|_| char::from(b'a' + (chance.below(26) * chance.below(26) / 26) as u8))
                .collect()
        })
        .collect();
    let mut text = Vec::with_capacity(24 << 20);
    while text.len() < 24 << 20 {
        if text.len() > 1 << 20 && chance.below(12) == 0 {
            let from = chance.below(text.len() as u64 - 4000) as usize;
            text.extend_from_within(from..from + 200 + chance.below(3000) as usize);
        }
        match chance.below(40) {
            0 => text.extend(chance.next().to_string().bytes()),
            1 => text.extend(chance.next().to_le_bytes()),
            2 => text.push(b'\n'),
            _ => text.extend(
                vocabulary[(chance.below(3000) * chance.below(3000) / 3000) as usize].bytes(),
            ),
        }
        text.push(b' ');
    }
    text
}

pub fn cc1() -> Session {
    Session::new(
        "cc1",
        "the C compiler proper on a large preprocessed file",
        Program::Installed("/usr/lib/gcc/x86_64-linux-gnu/12/cc1"),
    )
    .args([
        "-quiet",
        "-O2",
        "-fpreprocessed",
        "machine.i",
        "-o",
        "machine.s",
    ])
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .file("machine.i", machine)
    .interval_ms(50)
    .patience_s(180)
}

/// A C file of many functions, with loops, switches, structures and calls between them.
fn machine() -> Vec<u8> {
    let mut chance = crate::chance::Chance::new(7);
    let mut text = String::from(
        "struct cell { long key; double weight; struct cell *next; unsigned char tag[24]; };\n\
         extern void *malloc(unsigned long); extern int printf(const char *, ...);\n\
         static long pool[4096];\n",
    );
    for n in 0..700u64 {
        let (a, b, c) = (
            chance.below(4096),
            chance.below(60) + 2,
            chance.below(1 << 20),
        );
        let _ = write!(
            text,
            "long step_{n}(struct cell *c, long x, int depth)\n{{\n    \
             long sum = x ^ {c}; int i;\n    \
             for (i = 0; i < {b}; i++) {{ sum += pool[(i * {a} + sum) & 4095] * (i ^ depth); c->tag[i % 24] += sum; }}\n    \
             while (c && depth-- > 0) {{ c->weight = c->weight * 1.{b} + sum; sum ^= c->key << (depth & 7); c = c->next; }}\n    \
             switch (sum % {b}) {{\n"
        );
        for case in 0..b.min(9) {
            let callee = if n == 0 { 0 } else { chance.below(n) };
            let _ = writeln!(
                text,
                "    case {case}: pool[{}] += step_{callee}(c, sum + {}, depth - {}); break;",
                chance.below(4096),
                chance.below(1000),
                case + 1
            );
        }
        let _ = write!(text, "    default: sum -= {c}; }}\n    return sum;\n}}\n\n");
    }
    text.into_bytes()
}
