//! What a program has given up nobody has for it: the process that shares the memory of a
//! child, to keep its descriptors, runs with the child's rights and no others.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child that is committed, then gives up its rights, and waits.
const PROGRAM: &str = "
import os, time
pid = os.fork()
if pid == 0:
    os.write(1, b'committed\\n')
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    os.write(1, b'given up\\n')
    while not os.path.exists('end'): time.sleep(0.01)
    os.write(1, b'uid %d\\n' % os.getuid())
    os._exit(0)
os.waitpid(pid, 0)
";

/// Name and real uid of the processes whose parent this is, with their ids.
fn children(keeper: u32) -> Vec<(i32, String, u32)> {
    let of = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1).map(str::to_owned)
        };
        (field("PPid:")? == keeper.to_string()).then_some((
            pid,
            field("Name:")?,
            field("Uid:")?.parse().ok()?,
        ))
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(of)
        .collect()
}

/// A test that fails leaves nothing running.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The child that has given up its rights, and who shares its memory: one of each. (Whoever
/// shares that of its parent is root, like that.)
fn of_nobody(keeper: &Child) -> bool {
    let all = children(keeper.id());
    let count = |name: &str, uid| all.iter().filter(|p| p.1 == name && p.2 == uid).count();
    let programs = all.iter().filter(|p| p.1 != "dcrun-memory");
    let children: Vec<_> = programs.filter(|p| p.2 == 65534).collect();
    children.len() == 1 && count("dcrun-memory", 65534) == 1 && count("dcrun-memory", 0) == 1
}

#[test]
fn who_shares_memory_has_no_more_rights() {
    if !nix::unistd::geteuid().is_root() {
        println!("not played: nobody but root has rights to give up");
        return;
    }
    let dir = std::env::temp_dir().join(format!("dcrun-rights-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let shown = |dir: &Path| fs::read_to_string(dir.join("out")).unwrap_or_default();
    let mut keeper = Ended(
        Command::new(env!("CARGO_BIN_EXE_dcrun"))
            .args(["--name", "rights", "/usr/bin/python3", "-c", PROGRAM])
            .env("DCRUN_STATE", dir.join("state"))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join("out")).unwrap())
            .spawn()
            .unwrap(),
    );
    let keeper = &mut keeper.0;
    wait_for("the child gives up its rights", || {
        shown(&dir).contains("given up")
    });
    wait_for("nobody shares its memory", || of_nobody(keeper));
    for _ in 0..3 {
        let all = children(keeper.id());
        let child = all
            .iter()
            .find(|p| p.1 != "dcrun-memory" && p.2 == 65534)
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(child.0);
        // (A worker has the number of the one before: the time of its start tells them apart, in
        // hundredths of a second.)
        std::thread::sleep(Duration::from_millis(50));
        let begun = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, fields) = stat.rsplit_once(") ")?;
            let begun = fields.split(' ').nth(19)?;
            (!fields.starts_with('Z')).then(|| begun.to_owned())
        };
        let before = begun();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for("it is nobody's again, after a recovery", || {
            let now = begun();
            now.is_some() && now != before && of_nobody(keeper)
        });
    }
    fs::write(dir.join("end"), "").unwrap();
    assert!(keeper.wait().unwrap().success());
    assert_eq!(shown(&dir), "committed\ngiven up\nuid 65534\n");
    fs::remove_dir_all(&dir).unwrap();
}
