//! Small C programs, each about one fact of the kernel: they print a transcript that never changes, and check themselves.
//!
//! A probe runs some rounds, a line for each, so that a kill can fall between any two of its steps; its last line is `ok`.

use crate::session::{Channel, Program, Session, Stream};

const COMPILER: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-Wall", "-Wextra", "-Werror"];
const COMPILER_AVX: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-mavx", "-Wall", "-Wextra"];

/// One probe: its name, what it is about, and its source behind the part that all of them begin with.
macro_rules! probe {
    ($name:literal, $about:literal) => {
        probe!($name, $about, COMPILER)
    };
    ($name:literal, $about:literal, $compiler:expr) => {
        Session::new(
            concat!("probe-", $name),
            $about,
            Program::C {
                name: $name,
                source: concat!(
                    include_str!("../../programs/probe.h"),
                    include_str!(concat!("../../programs/", $name, ".c"))
                ),
                compiler: $compiler,
            },
        )
        .channel(Channel::Pipe)
        .stream(Stream::Exact)
    };
}

pub fn all() -> Vec<Session> {
    vec![
        probe!("counter", "a counter to a pipe and to a file, with fsync"),
        probe!("counter-append", "a counter to a file that the shell opened").channel(Channel::File),
        probe!("file-change", "a file overwritten, truncated, extended and appended to"),
        probe!("file-names", "rename, link, unlink, mkdir, rmdir, symlink"),
        probe!("file-unlinked", "an open file without a name"),
        probe!("file-maps", "a shared and a private mapping of a file"),
        probe!("pipe-self", "a pipe from a program to itself, with bytes in it"),
        probe!("stdin-lines", "lines read from a pipe while they are typed")
            .send("first\nsecond\n")
            .expect("second")
            .send("third\n")
            .expect("third")
            .strike()
            .send("4\n5\n6\n7\n")
            .expect("line 7: 7")
            .close_input(),
        probe!("timer-itimer", "setitimer: its signals and what is left of it"),
        probe!("timer-posix", "timer_create with a signal and with an overrun"),
        probe!("timer-fd", "timerfd: one-shot, periodic, read and poll"),
        probe!("sleep-left", "nanosleep interrupted, and the rest slept"),
        probe!("signal-handler", "handlers, SA_SIGINFO, nesting, SA_RESETHAND"),
        probe!("signal-mask", "blocked, pending, suspended and waited-for signals"),
        probe!("signal-stack", "a handler on its own stack, with SA_ONSTACK"),
        probe!("signal-restart", "SA_RESTART against EINTR"),
        probe!("threads-mutex", "threads with a mutex, a condition and their own TLS"),
        probe!("threads-errno", "errno of each thread across failing calls"),
        probe!("threads-robust", "a robust mutex whose owner died"),
        probe!("epoll-event", "epoll over eventfds and a pipe"),
        probe!("chance", "chance from the kernel, shown and chained").stream(Stream::Chained),
        probe!("identity", "cwd, umask, limits, pid, name"),
        probe!("terminal-raw", "termios: raw, back, and the window's size")
            .channel(Channel::Pty)
            .expect("ready")
            .send("abc\x03q")
            .expect("cooked")
            .strike()
            .send("one line\n")
            .expect("line: one line"),
        probe!("map-churn", "mmap, munmap, mremap, mprotect, madvise with checksums"),
        probe!("brk-growth", "brk up and down"),
        probe!("registers-avx", "ymm registers held across system calls", COMPILER_AVX),
        probe!("descriptors", "dup, dup2, dup3, fcntl, close_range and shared offsets"),
        probe!("exe-link", "/proc/self/exe, argv and auxv"),
        probe!("heap-churn", "malloc and free of all sizes, with checksums"),
        Session::new("probe-script", "a #! script", Program::InWorkDir("count"))
            .file("count", || {
                b"#!/bin/sh\ni=0\nwhile [ $i -lt 200 ]; do i=$((i + 1)); echo \"$0 $i\"; done\necho ok\n".to_vec()
            })
            .channel(Channel::Pipe)
            .stream(Stream::Exact),
    ]
}
