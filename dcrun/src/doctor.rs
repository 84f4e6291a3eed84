//! `dcrun doctor`: what this machine offers, tried rather than looked up.
//!
//! Each check says what it found; one that is not well also says what follows
//! from it and how to mend it. The command succeeds if programs can be run,
//! however slowly.

use std::fs;
use std::io::Write;

use dc_image::boot::high_fd;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::found_images;
use crate::limits;
use crate::machine::{jump, probe};
use crate::message::{Outcome, json_text, printable};
use crate::reserve;
use crate::runtime_file;
use crate::state_directory;

/// The first Linux with asynchronous write-protection and PAGEMAP_SCAN.
const KERNEL: (u32, u32) = (6, 7);
/// Less than this in /dev/shm is soon full.
const SHM_BYTES: u64 = 256 << 20;
/// Exit status if no program can be run.
const UNFIT: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Ok,
    Degraded,
    Missing,
}

struct Finding {
    what: &'static str,
    health: Health,
    found: String,
    /// What follows, and how to mend it; empty if all is well.
    follows: &'static str,
    mend: &'static str,
}

pub fn show(as_json: bool) -> Outcome<u8> {
    let findings = examine();
    let worst = findings
        .iter()
        .map(|finding| finding.health)
        .max()
        .unwrap_or(Health::Ok);
    let runnable = worst < Health::Missing;
    let text = if as_json {
        let checks: Value = findings.iter().map(Finding::to_json).collect();
        json_text(&json!({ "runnable": runnable, "checks": checks }))
    } else {
        let lines: String = findings.iter().map(Finding::to_text).collect();
        let last = match worst {
            Health::Ok => "Programs can be run.",
            Health::Degraded => "Programs can be run, with what is said above.",
            Health::Missing => "Programs cannot be run before what is missing is mended.",
        };
        format!("{lines}{last}\n")
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if runnable { 0 } else { UNFIT })
}

fn examine() -> Vec<Finding> {
    vec![
        kernel(),
        runtime(),
        state(),
        written_pages(),
        dispatch(),
        chosen_pids(),
        zombie_counters(),
        shared_memory(),
        orphans(),
        descriptors(),
        limits(),
        overcommit(),
        fsgsbase(),
        huge_pages(),
    ]
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    let well = version(&release).is_some_and(|version| version >= KERNEL);
    Finding::judged(
        "Linux",
        well,
        Health::Missing,
        release,
        "pages written between two commits cannot be found",
        "boot Linux 6.7 or newer",
    )
}

fn runtime() -> Finding {
    let (well, found) = match runtime_file::open() {
        Ok(runtime) => (true, runtime.place),
        Err(failure) => (false, failure.to_string()),
    };
    Finding::judged(
        "runtime",
        well,
        Health::Missing,
        found,
        "there is nothing to run programs with",
        "mend what DCRUN_RUNTIME or the place beside dcrun names, or take it away: dcrun has one \
         inside",
    )
}

fn state() -> Finding {
    let (well, found) = match state_directory::make() {
        Ok(path) => (true, path.display().to_string()),
        Err(failure) => (false, failure.to_string()),
    };
    Finding::judged(
        "state directory",
        well,
        Health::Missing,
        found,
        "runs cannot be recorded",
        "set DCRUN_STATE to a directory of yours",
    )
}

fn written_pages() -> Finding {
    let (well, found) = match probe::written_pages() {
        Ok(()) => (
            true,
            "userfaultfd WP_ASYNC and PAGEMAP_SCAN work".to_owned(),
        ),
        Err((step, error)) => (false, format!("{step}: {error}")),
    };
    Finding::judged(
        "written pages",
        well,
        Health::Missing,
        found,
        "pages written between two commits cannot be found",
        "boot Linux 6.7 or newer, with CONFIG_USERFAULTFD and without a sandbox that forbids it",
    )
}

fn dispatch() -> Finding {
    let (well, found) = match probe::syscall_user_dispatch() {
        Ok(()) => (true, "works".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Finding::judged(
        "syscall user dispatch",
        well,
        Health::Missing,
        found,
        "system calls at sites that cannot be patched would escape",
        "boot a kernel with CONFIG_GENERIC_ENTRY on x86-64 (5.11 or newer), outside of a sandbox",
    )
}

fn chosen_pids() -> Finding {
    let well = jump::may_choose_pid();
    let found = if well {
        "permitted"
    } else {
        "not permitted to this user"
    };
    Finding::judged(
        "old pids",
        well,
        Health::Degraded,
        found.to_owned(),
        "after a recovery the kernel knows a program by another pid than the program does; the \
         runtime translates",
        "run as root, or `setcap cap_checkpoint_restore+ep` the dcrun executable, which gives the \
         programs it runs that capability too",
    )
}

fn zombie_counters() -> Finding {
    let (well, found) = match probe::io_of_zombie() {
        Ok(text) if text.contains("wchar:") => (true, "readable".to_owned()),
        Ok(_) => (false, "there, without counters".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Finding::judged(
        "counters of the dead",
        well,
        Health::Degraded,
        found,
        "a recovery may repeat the one visible event it cannot tell from one that did not happen",
        "boot a kernel with CONFIG_TASK_IO_ACCOUNTING, and mount /proc",
    )
}

fn shared_memory() -> Finding {
    match probe::space(c"/dev/shm") {
        Ok((free, all)) => Finding::judged(
            "/dev/shm",
            free >= SHM_BYTES,
            Health::Degraded,
            format!("{} MiB free of {}", free >> 20, all >> 20),
            "Rio on tmpfs is soon full; a run then stops at its last commit",
            "remount it larger (`mount -o remount,size=50% /dev/shm`), or use --rio disk",
        ),
        Err(error) => Finding::judged(
            "/dev/shm",
            false,
            Health::Degraded,
            error.to_string(),
            "Rio cannot be on tmpfs",
            "mount a tmpfs there, or use --rio disk",
        ),
    }
}

fn orphans() -> Finding {
    let orphans = found_images::orphans();
    let bytes: u64 = orphans.iter().map(|(_, bytes)| bytes).sum();
    let names: Vec<String> = orphans
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    let found = match orphans.len() {
        0 => "none".to_owned(),
        count => format!("{count}, holding {} MiB: {}", bytes >> 20, names.join(" ")),
    };
    Finding::judged(
        "images without a run",
        orphans.is_empty(),
        Health::Degraded,
        found,
        "the directories of their runs were removed by hand, and only the memory is left",
        "`dcrun rm NAME`, with the name before the last `-` of the file's",
    )
}

fn descriptors() -> Finding {
    let found = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => reserve::place(soft, hard).map(|reservation| {
            (
                soft as i64 <= i64::from(reservation.fd_base),
                format!("soft {soft}, hard {hard}"),
            )
        }),
        Err(error) => Ok((false, error.desc().to_owned())),
    };
    match found {
        Ok((well, found)) => Finding::judged(
            "open files",
            well,
            Health::Degraded,
            found,
            "programs see a lower limit of open files than without dcrun",
            "raise the hard limit 1024 above the soft one (`ulimit -Hn`)",
        ),
        Err(failure) => Finding::judged(
            "open files",
            false,
            Health::Missing,
            failure.to_string(),
            "there is no room for dcrun's own descriptors",
            "raise the hard limit (`ulimit -Hn`)",
        ),
    }
}

fn limits() -> Finding {
    let (well, found) = match limits::check() {
        Ok(()) => (true, "wide enough".to_owned()),
        Err(failure) => (false, failure.to_string()),
    };
    Finding::judged(
        "limits of resources",
        well,
        Health::Missing,
        found,
        "the runtime has no room beside the program",
        "raise the limit that is named, in the shell that calls dcrun",
    )
}

fn overcommit() -> Finding {
    let mode = read("/proc/sys/vm/overcommit_memory");
    Finding::judged(
        "overcommit",
        mode != "2",
        Health::Missing,
        format!("mode {mode}"),
        "the runtime's sparse tables are refused",
        "`sysctl vm.overcommit_memory=0`",
    )
}

fn fsgsbase() -> Finding {
    let well = probe::fsgsbase();
    Finding::judged(
        "fsgsbase",
        well,
        Health::Degraded,
        if well { "usable" } else { "not usable" }.to_owned(),
        "each switch of the thread pointer costs a system call",
        "boot without `nofsgsbase`",
    )
}

fn huge_pages() -> Finding {
    let text = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let mode = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("none", |(mode, _)| mode)
        .to_owned();
    Finding::judged(
        "huge pages",
        matches!(mode.as_str(), "always" | "madvise"),
        Health::Degraded,
        mode,
        "a commit of a large program costs more, as its scan sees every 4 KB page",
        "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`",
    )
}

impl Finding {
    fn judged(
        what: &'static str,
        well: bool,
        otherwise: Health,
        found: String,
        follows: &'static str,
        mend: &'static str,
    ) -> Finding {
        match well {
            true => Finding {
                what,
                health: Health::Ok,
                found,
                follows: "",
                mend: "",
            },
            false => Finding {
                what,
                health: otherwise,
                found,
                follows,
                mend,
            },
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "check": self.what,
            "health": self.health.name(),
            "found": self.found,
            "follows": self.follows,
            "mend": self.mend,
        })
    }

    fn to_text(&self) -> String {
        let found = printable(&self.found);
        let first = format!("{:<9} {}: {found}\n", self.health.name(), self.what);
        match self.health {
            Health::Ok => first,
            _ => format!(
                "{first}          {}; to mend it: {}\n",
                self.follows, self.mend
            ),
        }
    }
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Degraded => "degraded",
            Health::Missing => "missing",
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Major and minor number of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

const _: () = assert!(
    high_fd::COUNT == 1024,
    "the advice about open files names it"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kernel_releases() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("6.7"), Some((6, 7)));
        assert_eq!(version(""), None);
        assert!(version("5.15.0").unwrap() < KERNEL);
    }

    #[test]
    fn says_how_to_mend_what_is_not_well() {
        let ill = Finding::judged("x", false, Health::Degraded, "y".to_owned(), "z", "w");
        assert_eq!(
            ill.to_text(),
            "degraded  x: y\n          z; to mend it: w\n"
        );
        let well = Finding::judged("x", true, Health::Missing, "y".to_owned(), "z", "w");
        assert_eq!(well.to_text(), "ok        x: y\n");
    }
}
