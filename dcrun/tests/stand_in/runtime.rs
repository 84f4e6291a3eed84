//! A stand-in for the runtime: enough of one to see the keeper at work.
//!
//! It loads no program. It reads the program's arguments as a script of deaths,
//! one for each worker of the run, counted in `Live::commits`:
//!
//! `exit:N`, `fatal`, `commit` (then next word in the same worker), `kill:N`,
//! `stop:N`, `sleep:MS`, `say:TEXT`, and for what it prints of itself: `args`,
//! `env`, `open` (descriptors), `signals`, `boot` (what it was told). `grow:MB` makes
//! the image that long, `spin` uses the processor. If the first word is `unborn`,
//! every worker is killed before it says that it runs.
#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use dc_image::boot::{BootInfo, Slice, high_fd};
use dc_image::header::{Header, LIVE_OFFSET, Live};
use dc_image::run::{PROCESSES_OFFSET, Process, RUN_OFFSET, Run, processes_sum};
use dc_image::seal;
use dc_image::window::{ARENA_BASE, RIO_BASE};
use dc_image::{FatalCode, Status};

// What the compiler calls without being asked: memcpy and its like.
core::arch::global_asm!(include_str!("memory.s"), options(att_syntax));

/// In .data and .bss, to see that both were mapped.
static mut DATA: u64 = 0x1234;
static mut ZEROS: [u64; 2048] = [0; 2048];

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("call {}", "ud2", sym begin)
}

unsafe fn call(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64) -> i64 {
    let answer;
    // SAFETY: the caller answers for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => answer, in("rdi") a, in("rsi") b,
             in("rdx") c, in("r10") d, in("r8") e, in("r9") 0, out("rcx") _, out("r11") _);
    }
    answer
}

struct Out;
impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: a write of a live slice, or an exit.
        unsafe { call(1, 1, text.as_ptr() as u64, text.len() as u64, 0, 0) };
        Ok(())
    }
}

unsafe fn words(slice: Slice) -> &'static [u64] {
    // SAFETY: what the keeper hands over is as dc-image says, mapped and whole.
    unsafe { core::slice::from_raw_parts(slice.addr as *const u64, slice.len as usize) }
}

unsafe fn string(address: u64) -> &'static str {
    // SAFETY: what the keeper hands over is as dc-image says, mapped and whole.
    unsafe {
        let bytes = core::ffi::CStr::from_ptr(address as *const i8).to_bytes();
        core::str::from_utf8_unchecked(bytes)
    }
}

unsafe extern "C" fn begin(info: &'static BootInfo) -> ! {
    // SAFETY: what the keeper hands over is as dc-image says, mapped and whole.
    unsafe {
        let rio = (info.fd_base + high_fd::RIO) as u64;
        call(9, RIO_BASE as u64, 1 << 20, 3, 0x11, rio);
        let live = &*((RIO_BASE + LIVE_OFFSET) as *const Live);
        let bss_is_zero = (*(&raw const ZEROS)).iter().all(|&word| word == 0);
        if (&raw const DATA).read_volatile() != 0x1234 || !bss_is_zero {
            end(live, 99);
        }
        if info.mode != 0 {
            // A worker that recovers must start with signals blocked.
            let mut blocked = 0u64;
            call(14, 2, &raw const info.sigmask as u64, &raw mut blocked as u64, 8, 0);
            if blocked >> 14 & 1 == 0 {
                end(live, 96);
            }
            let nth = live.recoveries.load(Relaxed) % 64;
            let mut now = [0u64; 2];
            call(228, 1, now.as_mut_ptr() as u64, 0, 0, 0);
            let now_ns = now[0] * 1_000_000_000 + now[1];
            let took = now_ns - live.recovery_begin_ns.load(Relaxed);
            live.recovery_ns[nth as usize].store(took, Relaxed);
        }
        if info.mode == 0 {
            live.generation.fetch_add(1, Relaxed);
        }
        let first = words(info.argv).get(1).map(|&word| string(word));
        if first == Some("unborn") {
            call(62, call(39, 0, 0, 0, 0, 0) as u64, 9, 0, 0, 0);
        }
        live.status.store(Status::Running as u32, Release);
        loop {
            let at = live.commits.load(Acquire);
            live.commits.store(at + 1, Release);
            let arguments = words(info.argv);
            let Some(&word) = arguments.get(at as usize + 1) else { end(live, 0) };
            step(info, live, string(word));
        }
    }
}

unsafe fn step(info: &BootInfo, live: &Live, word: &str) {
    let (verb, rest) = word.split_once(':').unwrap_or((word, "0"));
    let number = rest.parse::<u64>().unwrap_or(0);
    // SAFETY: what the keeper hands over is as dc-image says, mapped and whole.
    unsafe {
        let own = call(39, 0, 0, 0, 0, 0) as u64;
        match verb {
            "commit" => {
                publish(live, own as i32);
            }
            "exit" => end(live, number as u32),
            "done" => {
                // As an exit, of which the keeper sees nothing yet.
                live.seal_end(image_id(), number as u32, 0);
                live.status.store(Status::Done as u32, Release);
            }
            "leave" => {
                call(231, number, 0, 0, 0, 0);
            }
            "kill" | "stop" => {
                call(62, own, number, 0, 0, 0);
            }
            "fatal" => {
                let text = b"the stand-in gave up\0";
                let to = (&raw const live.message).cast_mut().cast::<u8>();
                core::ptr::copy_nonoverlapping(text.as_ptr(), to, text.len());
                live.fatal.store(FatalCode::RioFull as u32, Release);
                call(231, 1, 0, 0, 0, 0);
            }
            "sleep" => {
                let time = [number / 1000, number % 1000 * 1_000_000];
                call(35, time.as_ptr() as u64, 0, 0, 0, 0);
            }
            "grow" => {
                let rio = (info.fd_base + high_fd::RIO) as u64;
                call(285, rio, 0, 0, number << 20, 0);
            }
            "spin" => loop {
                core::hint::spin_loop();
            },
            "say" => {
                let _ = writeln!(Out, "{rest}");
            }
            "open" => {
                // Which low descriptors there are: `open:` then their numbers.
                let _ = write!(Out, "open:");
                for number in 0..info.fd_base as u64 {
                    if call(72, number, 1, 0, 0, 0) >= 0 {
                        let _ = write!(Out, " {number}");
                    }
                }
                let _ = writeln!(Out);
            }
            "signals" => {
                let (mut mask, mut ignored) = (0u64, 0u64);
                call(14, 0, 0, &raw mut mask as u64, 8, 0);
                for signal in 1..65 {
                    let mut action = [0u64; 4];
                    call(13, signal, 0, action.as_mut_ptr() as u64, 8, 0);
                    ignored |= u64::from(action[0] == 1) << (signal - 1);
                }
                let _ = writeln!(Out, "blocked={mask:x} ignored={ignored:x}");
            }
            "args" | "env" => {
                let list = words(if verb == "args" { info.argv } else { info.envp });
                for &word in list {
                    let _ = writeln!(Out, "{}", string(word));
                }
            }
            "boot" => {
                let auxv = words(Slice { addr: info.auxv.addr, len: info.auxv.len * 2 });
                let executed = auxv.chunks(2).find(|pair| pair[0] == 31).map_or(0, |pair| pair[1]);
                let _ = writeln!(
                    Out,
                    "mode={} protocol={} fd_base={} durable={} interval_ms={} known={} rchar={} \
                     wchar={} fault={}:{} plant={} pid={} same_pid={} program={} executed={} \
                     nofile={}:{} arena={}",
                    info.mode, info.protocol, info.fd_base, info.durable, info.interval_ms,
                    (live.dead_generation.load(Relaxed) == live.generation.load(Relaxed)) as u32,
                    live.dead_rchar.load(Relaxed), live.dead_wchar.load(Relaxed),
                    info.fault, info.fault_at,
                    info.plant, info.pid, info.pid as u64 == own, string(info.program.addr),
                    string(executed), info.nofile[0], info.nofile[1],
                    info.arena_free as usize > ARENA_BASE,
                );
                live.generation.fetch_add(1, Relaxed);
            }
            _ => end(live, 98),
        }
    }
}

fn image_id() -> u64 {
    // SAFETY: the image is mapped, and its header only read.
    unsafe { (*(RIO_BASE as *const Header)).id }
}

/// A commit of no pages.
fn publish(live: &Live, own: i32) {
    // SAFETY: the image is mapped; all of these are atomics.
    let (run, first) = unsafe {
        let at = RIO_BASE + RUN_OFFSET;
        (&*(at as *const Run), &*((at + PROCESSES_OFFSET) as *const Process))
    };
    // (The keeper does so too, perhaps later.)
    first.id.store(own, Release);
    first.born.store(1, Release);
    let published = live.published.load(Relaxed);
    first.seals.write(seal::key(image_id(), 1), published, [0, 0]);
    let sums = [processes_sum(core::iter::once(first), published + 1), 0];
    run.seals.write(seal::key(image_id(), seal::OF_RUN), published, sums);
    live.published.store(published + 1, Release);
}

unsafe fn end(live: &Live, code: u32) -> ! {
    live.seal_end(image_id(), code, 0);
    live.status.store(Status::Done as u32, Release);
    loop {
        // SAFETY: a write of a live slice, or an exit.
        unsafe { call(231, code as u64, 0, 0, 0, 0) };
    }
}

/// Named by the precompiled core, though nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        // SAFETY: a write of a live slice, or an exit.
        unsafe { call(231, 97, 0, 0, 0, 0) };
    }
}
