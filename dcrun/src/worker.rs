//! Workers of one run: what each is told, and how it is started.

use dc_image::boot::{BootInfo, FOLD_MS, LOG_LIMIT, Mode, Slice, conflict, fault, plant};
use nix::errno::Errno;

use crate::machine::jump::{self, Plan};
use crate::message::{Doing, Outcome};

/// Starts the workers of a run, one after the other.
pub struct Starter {
    pub plan: Plan,
    /// As the next worker gets it, but for what [`Start`] says.
    pub info: BootInfo,
    pub can_set_tid: bool,
}

/// What is different from worker to worker.
#[derive(Clone, Copy)]
pub struct Start {
    pub mode: Mode,
    /// The pid the program knows itself by; 0 for the first worker.
    pub pid: i32,
    pub fault: u32,
    /// Its entry in the run's table of processes.
    pub slot: u32,
}

impl Starter {
    /// Returns the pid of the new worker.
    pub fn start(&mut self, start: Start) -> Outcome<i32> {
        let info = &mut self.info;
        info.mode = start.mode as u32;
        info.pid = start.pid;
        info.fault = start.fault;
        info.slot = start.slot;
        info.can_set_tid = u32::from(self.can_set_tid);
        let wanted = (self.can_set_tid && start.pid != 0).then_some(start.pid);
        let mut outcome = jump::start(&self.plan, &self.info, wanted);
        if let (Some(_), Err(error)) = (wanted, &outcome) {
            // EEXIST: the old number has a new owner. The program is then told
            // its old number and the kernel's is translated.
            let code = error.raw_os_error().map(Errno::from_raw);
            if matches!(code, Some(Errno::EEXIST | Errno::EPERM | Errno::EINVAL)) {
                outcome = jump::start(&self.plan, &self.info, None);
            }
        }
        outcome.doing(|| "start the worker process (clone3)".to_owned())
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
    }
}
