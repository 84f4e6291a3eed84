//! Workers of one run: what each is told, and how it is started.

use dc_image::boot::{BootInfo, FOLD_MS, LOG_LIMIT, Mode, Slice, conflict, fault, plant};

use crate::families::Member;
use crate::machine::jump::{self, Groups, Plan};
use crate::message::{Doing, Outcome};

/// Starts the workers of a run, one after the other.
pub struct Starter {
    pub plan: Plan,
    /// As the next worker gets it, but for what [`Start`] says.
    pub info: BootInfo,
    pub can_set_tid: bool,
}

/// What is different from recovery to recovery.
#[derive(Clone, Copy)]
pub struct Start {
    pub mode: Mode,
    /// The pid the program knows itself by; 0 for the first worker.
    pub pid: i32,
    pub fault: u32,
}

impl Starter {
    /// Starts a process with those that it starts. Returns the kernel's number of it.
    pub fn start(&mut self, start: Start, member: &Member, groups: &mut Groups) -> Outcome<i32> {
        let info = &mut self.info;
        info.mode = start.mode as u32;
        info.fault = start.fault;
        info.can_set_tid = u32::from(self.can_set_tid);
        jump::start(&self.plan, &self.info, member, groups)
            .doing(|| "start the worker process (clone3)".to_owned())
    }
}

/// All zero: of mode `Fresh`, without fault, plant and trace.
pub fn blank_boot_info() -> BootInfo {
    BootInfo {
        mode: Mode::Fresh as u32,
        protocol: 0,
        fd_base: 0,
        durable: 0,
        interval_ms: 0,
        rio_len: 0,
        program: Slice::default(),
        argv: Slice::default(),
        envp: Slice::default(),
        auxv: Slice::default(),
        nofile: [0; 2],
        memory_limits: [[u64::MAX; 2]; 2],
        stack_limit: 0,
        can_set_tid: 0,
        trace: 0,
        fault: fault::NONE,
        fault_at: 0,
        plant: plant::NONE,
        pid: 0,
        vdso: [Slice::default(); 4],
        arena_free: 0,
        sigmask: 0,
        auto: 0,
        log_limit: LOG_LIMIT,
        fold_ms: FOLD_MS,
        slot: 0,
        conflict: conflict::STOP,
        inherited_end: 0,
    }
}
