//! Small C programs, each about one fact of the kernel: they print a transcript that never changes, and check themselves.
//!
//! A probe runs some rounds, a line for each, so that a kill can fall between any two of its steps; its last line is `ok`.

use crate::session::{Channel, Program, Session, Stream};

const COMPILER: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-Wall", "-Wextra", "-Werror"];
const COMPILER_AVX: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-mavx", "-Wall", "-Wextra"];

const COMPILER_SOCKETS: &[&str] = &[
    "/usr/bin/gcc",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-DSOCKETS",
];
const NO_PIE: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-no-pie", "-fno-pie"];
const STATIC: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-static", "-no-pie"];
const STATIC_PIE: &[&str] = &["/usr/bin/gcc", "-O1", "-g", "-static-pie", "-fPIE"];

/// One probe: its name, what it is about, and its source behind the part that all of them begin with. The same source
/// may be built in another way under a name of its own.
macro_rules! probe {
    ($name:literal, $about:literal) => {
        probe!($name, $about, COMPILER)
    };
    ($name:literal, $about:literal, $compiler:expr) => {
        probe!(@ $name, concat!("probe-", $name), $about, $compiler)
    };
    ($name:literal, $way:literal, $about:literal, $compiler:expr) => {
        probe!(@ $name, concat!("probe-", $name, "-", $way), $about, $compiler)
    };
    (@ $name:literal, $session:expr, $about:literal, $compiler:expr) => {
        Session::new(
            $session,
            $about,
            Program::C {
                name: $name,
                source: concat!(
                    include_str!("../../programs/probe.h"),
                    "#line 1 \"", $name, ".c\"\n",
                    include_str!(concat!("../../programs/", $name, ".c"))
                ),
                compiler: $compiler,
            },
        )
        .channel(Channel::Pipe)
        .stream(Stream::Exact)
    };
}

/// Must be what the program counts to.
const INTERRUPTS: usize = 24;

/// One less than the sizes that the program reports.
const RESIZES: usize = 23;

fn resizes() -> Session {
    let session = probe!(
        "terminal-waits",
        "a program that looks at the window's size only when its wait is interrupted"
    )
    .channel(Channel::Pty);
    let rows = |number: usize| 24 + number % 2;
    let session = (1..=RESIZES).fold(session.expect("size 1: 24 80"), |session, number| {
        session
            .resize(rows(number) as u16, 80)
            .strike()
            .expect(format!("size {}: {} 80", number + 1, rows(number)))
    });
    session.resize(30, 80)
}

fn interrupts() -> Session {
    let session = probe!("terminal-interrupt", "each ^C arrives once").channel(Channel::Pty);
    (2..=INTERRUPTS)
        .fold(session.expect(r"ready 1\b"), |session, number| {
            session.interrupt(format!("ready {number}\\b"))
        })
        .interrupt("ok")
}

fn edges() -> Session {
    let session = probe!(
        "epoll-edges",
        "edges and single shots of lines from outside, of which each must come"
    );
    (1..=16).fold(session.expect("ready"), |session, number| {
        session
            .send(format!("of {number}\n"))
            .expect(format!("line {number}: of {number}\\b"))
    })
}

fn job_control() -> Session {
    let session = probe!(
        "job-control",
        "a group of its own in the foreground of the terminal"
    )
    .channel(Channel::Pty);
    (1..=24).fold(session, |session, number| {
        session
            .expect(format!("ready {number}\\b"))
            .send(format!("of {number}\n"))
            .expect(format!("line {number}: of {number}\\b"))
    })
}

pub fn all() -> Vec<Session> {
    vec![
        probe!("counter", "a counter to a pipe and to a file, with fsync"),
        probe!("counter-append", "a counter to a file that the shell opened").channel(Channel::File),
        probe!("file-change", "a file overwritten, truncated, extended and appended to"),
        probe!("file-names", "rename, link, unlink, mkdir, rmdir, symlink"),
        probe!("file-backup", "a file renamed to its backup and written anew"),
        probe!("file-attributes", "extended attributes set, replaced and removed"),
        probe!("file-unlinked", "an open file without a name"),
        probe!("file-maps", "a shared and a private mapping of a file"),
        probe!("odd-arguments", "what the kernel refuses, with which error, and that nothing comes of it"),
        probe!("map-rights", "what a mapping may not become, and a change of protection that ends early"),
        probe!("file-nameless", "files that are open or mapped, and whose names go or change"),
        probe!("tree-storm", "processes that share everything, and do it all at once"),
        probe!("tree-file-removed", "files of one process whose names another one removes"),
        probe!("stop-and-end", "a process that is stopped by a child which ends at once"),
        probe!("waits", "children that stop, go on and end; process groups"),
        probe!("ptys", "sessions on terminals that the program makes itself"),
        probe!(
            "group-abandoned",
            "a stopped group whose last supervisor ends"
        ),
        probe!(
            "ptys-full",
            "more than a terminal that the program makes itself has room for"
        ),
        probe!(
            "ptys-unread",
            "what lies in terminals that the program makes itself, and is read late"
        ),
        probe!("pidfds", "descriptors of processes"),
        probe!("orphans", "parents that end before their children, and the signal that those asked for"),
        probe!("file-maps-threads", "threads that store into the same pages of a file"),
        probe!("signal-queue", "many queued signals with values, after the first thread has ended"),
        probe!("signals-awaited", "signals that a process waits for, sent by another one, by its child, by its parent"),
        probe!("stack-downward", "memory that grows downward; processor time that never goes back"),
        probe!("memory-locked", "locked memory, and what comes later with it"),
        probe!("memory-memfd", "memory behind a descriptor without a name"),
        probe!("pipe-self", "a pipe from a program to itself, with bytes in it"),
        probe!("pipes-within", "pipes and a fifo between processes, with bytes in them"),
        probe!("fifos-moved", "fifos of two processes, whose names change and go while they are open"),
        probe!("robust-ends", "robust mutexes of processes that end, by whatever"),
        probe!("inotify-watches", "watches of directories, with gaps in their numbers"),
        probe!("child-memory", "a process and its child, whose memory goes on changing"),
        probe!("pipe-threads", "threads that talk over pipes of their own"),
        probe!("sysv-memory", "a System V segment of several processes, attached, inherited and removed"),
        probe!("sysv-semaphores", "System V semaphores between processes: turns, SEM_UNDO, timeouts"),
        probe!("sysv-messages", "System V message queues between processes"),
        probe!("shared-posix", "memory and a semaphore with names, of two processes; robust mutexes"),
        probe!("memfd-shared", "memory behind a descriptor without a name, of several processes"),
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
        probe!("signal-fault", "faults that a handler mends or jumps away from"),
        probe!("signal-restart", "SA_RESTART against EINTR"),
        probe!("signal-transfers", "no write and no read ends with EINTR while it need not wait"),
        probe!("signal-files", "no opening, sync or wake of a futex ends with EINTR"),
        probe!("threads-mutex", "threads with a mutex, a condition and their own TLS"),
        probe!("threads-churn", "threads that come and go"),
        probe!("threads-signal", "signals to a thread and to the process"),
        probe!("threads-errno", "errno of each thread across failing calls"),
        probe!("threads-robust", "a robust mutex whose owner died"),
        probe!("futex-cold", "a shared futex in memory that was left alone for long")
            .env("DCRUN_FOLD_MS", "5"),
        probe!("epoll-event", "epoll over eventfds and a pipe"),
        edges(),
        probe!("clock-spin", "the time asked for by threads and a handler without pause"),
        probe!("chance", "chance from the kernel, shown and chained").stream(Stream::Chained),
        probe!("credentials", "ids, groups and capabilities given up step by step, by two threads"),
        probe!("attributes", "limits, scheduling and the settings of a process"),
        probe!("seccomp", "filters of system calls: actions, threads, children, exec, strict mode"),
        probe!("set-by-others", "settings of a process that another one makes"),
        probe!("fewer-rights", "a child that gives up rights, and the parent that waits for it"),
        probe!("rightless-children", "children of a process that has given up its rights"),
        probe!("vfork-memory", "memory of a child of vfork, which is its parent's"),
        probe!("wait-interrupted", "a wait for a child whose end is told by a signal as well"),
        probe!("spawns-beside", "a thread that reads while another one starts programs"),
        probe!("child-times", "processor time of children and of theirs"),
        probe!("aio", "asynchronous I/O: its events, an eventfd, threads and time"),
        probe!("identity", "cwd, umask, limits, pid, name"),
        probe!("terminal-raw", "termios: raw, back, and the window's size")
            .channel(Channel::Pty)
            .expect("ready")
            .send("abc\x03q")
            .expect("cooked")
            .strike()
            .send("one line\n")
            .expect("line: one line"),
        probe!("terminal-size", "the window's size and SIGWINCH")
            .channel(Channel::Pty)
            .expect("size 1: 24 80")
            .resize(30, 80)
            .expect("size 2: 30 80")
            .strike()
            .resize(30, 100)
            .expect("size 3: 30 100")
            .resize(20, 100)
            .expect("size 4: 20 100")
            .strike()
            .resize(20, 80)
            .expect("size 5: 20 80")
            .resize(50, 80)
            .expect("size 6: 50 80")
            .resize(24, 80),
        resizes(),
        interrupts(),
        job_control(),
        probe!("map-churn", "mmap, munmap, mremap, mprotect, madvise with checksums"),
        probe!("map-hints", "wishes for addresses, free and taken, below 2 GB and far up"),
        probe!("map-large", "large areas: dropped, moved, protected, grown, all after recoveries"),
        probe!("lock-mapped", "locks of files that are closed and still mapped"),
        probe!("lock-inherited", "flock of a description that several processes have"),
        probe!("reopened", "pipes and files opened once more by their links in /dev/fd and /proc"),
        probe!("signalfd-pending", "signals that wait for a signalfd, sent by another process"),
        probe!("map-advice", "memory that a fork leaves out or wipes, and that no core dump holds"),
        probe!("map-fork", "a child's memory stays while the parent writes and commits"),
        probe!("buffers-asleep", "calls that write into memory that has been quiet"),
        probe!("buffers-asleep", "sockets", "what comes by a socket into memory that has been quiet", COMPILER_SOCKETS),
        probe!("sockets-within", "sockets between the processes of a program, and what is on its way in them"),
        probe!("sockets-closed", "sockets and pipes of old, closed before a while in which nothing is seen"),
        probe!("sockets-handed", "a socket handed to another process in a message"),
        probe!("ends-left", "ends of pipes and sockets with bytes inside, which a child closes one by one"),
        probe!("pipes-handed", "ends of pipes handed to a process that starts others"),
        probe!("limits-given-up", "a process that may make no file longer and no process any more"),
        probe!("sockets-listening", "servers that listen, with their addresses, options and files"),
        probe!("socket-tied", "sockets bound and connected"),
        probe!("socket-stream", "a stream sent and received in every way"),
        probe!("transfers-beside", "bytes moved between descriptors beside a process that commits"),
        probe!("wait-beside", "calls that wait for what another thread does"),
        probe!("memory-sweep", "writes that move upward through memory, steadily and not"),
        probe!("memory-cold", "memory left alone, read, partly rewritten, dropped and moved")
            .env("DCRUN_FOLD_MS", "5"),
        probe!("brk-growth", "brk up and down"),
        probe!("registers-flags", "flags of arithmetic and direction across a call"),
        probe!("call-sites", "whatever may stand before a `syscall`"),
        probe!("registers-avx", "ymm registers held across system calls", COMPILER_AVX),
        probe!("fpu-control", "rounding in SSE and x87, kept across calls"),
        probe!("stack-deep", "a main stack that grows far and comes back"),
        probe!("exit-code", "an exit status of its own").status(7),
        probe!("exit-signal", "a death by a signal").status(128 + 15),
        probe!("descriptors", "dup, dup2, dup3, fcntl, close_range and shared offsets"),
        probe!("exe-link", "/proc/self/exe, argv and auxv"),
        probe!("exe-link", "no-pie", "the same, not position-independent", NO_PIE),
        probe!("exe-link", "static", "the same, static", STATIC),
        probe!("exe-link", "static-pie", "the same, static and position-independent", STATIC_PIE),
        probe!("exec-threads", "exec from several threads: what is kept, and what ends"),
        probe!("exec-files", "which files an exec takes, with which arguments and errors"),
        probe!("proc-self", "what /proc says of the process itself, by every call"),
        probe!("proc-read", "files and directories of /proc and /sys, read piece by piece"),
        probe!("heap-churn", "malloc and free of all sizes, with checksums"),
        Session::new("probe-script", "a #! script", Program::InWorkDir("count"))
            .file("count", || {
                b"#!/bin/sh\ni=0\nwhile [ $i -lt 200 ]; do i=$((i + 1)); echo \"$0 $i\"; done\necho ok\n".to_vec()
            })
            .channel(Channel::Pipe)
            .stream(Stream::Exact),
    ]
}
