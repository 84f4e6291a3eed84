//! A power loss on disk: what had not reached it is left out, what had reached it must be there.
//!
//! A real run is killed, keeper and all, and its image is torn as a disk would leave it: bytes of
//! the journal are changed or zero, behind what the runtime made durable and before it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use dc_image::header::{JOURNAL_OFFSET, LIVE_OFFSET, Live};
use serde_json::Value;

/// Shows the time five times, asks for it many times more, and waits for a file.
const PROGRAM: &str = "
import os, time
for i in range(5):
    os.write(1, b'%d %d\\n' % (i, time.time_ns()))
seen = [time.time_ns() for _ in range(50)]
if not os.path.exists('go'):
    open('/dev/null').close()
    while not os.path.exists('go'): time.sleep(0.01)
os.write(1, b'end %d\\n' % len(seen))
";

struct Run {
    dir: PathBuf,
}

impl Run {
    fn new(name: &str) -> Run {
        let dir = std::env::temp_dir().join(format!("dcrun-torn-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("program.py"), PROGRAM).unwrap();
        Run { dir }
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    fn dcrun(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
        command
            .args(args)
            .env("DCRUN_STATE", self.dir.join("state"))
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    fn begin(&self) -> Command {
        let rio = format!("disk:{}", self.image().display());
        let mut command = self.dcrun(&["--rio", &rio, "--protocol", "cbndvs-log", "--name", "t"]);
        command.args(["/usr/bin/python3", "program.py"]);
        command
    }

    /// Runs until the log has grown past what was made durable, and kills all of it.
    fn killed(&self) -> Journal {
        let out = fs::File::create(self.dir.join("out")).unwrap();
        let mut keeper = self
            .begin()
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < until, "the log does not grow");
            std::thread::sleep(Duration::from_millis(20));
            let shown = fs::read_to_string(self.dir.join("out")).unwrap_or_default();
            if shown.lines().count() == 5 && Journal::of(&self.image()).loose() > 4000 {
                break;
            }
        }
        let listed = self.dcrun(&["ps", "--json"]).output().unwrap();
        let runs: Value = serde_json::from_slice(&listed.stdout).unwrap();
        for pid in ["keeper_pid", "worker_pid"] {
            let pid = nix::unistd::Pid::from_raw(runs[0][pid].as_i64().unwrap() as i32);
            assert!(pid.as_raw() > 1);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        keeper.wait().unwrap();
        fs::write(self.dir.join("go"), "").unwrap();
        Journal::of(&self.image())
    }

    fn resume(&self) -> Output {
        let mut out = fs::File::options();
        let out = out.append(true).open(self.dir.join("out")).unwrap();
        self.begin().stdout(out).output().unwrap()
    }

    fn shown(&self) -> String {
        fs::read_to_string(self.dir.join("out")).unwrap()
    }

    fn change(&self, at: usize, how: impl Fn(&mut [u8]), len: usize) {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(self.image());
        let file = file.unwrap();
        let at = (JOURNAL_OFFSET + at) as u64;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).unwrap();
        how(&mut bytes);
        file.write_all_at(&bytes, at).unwrap();
    }

    /// The machine is another boot of itself: only then can anything be lost.
    fn lose_power(&self) {
        let file = fs::File::options().write(true).open(self.image()).unwrap();
        let at = LIVE_OFFSET + std::mem::offset_of!(Live, boot_sum);
        file.write_all_at(&77u64.to_ne_bytes(), at as u64).unwrap();
    }

    /// It goes on, says that something is missing, and contradicts nothing.
    fn goes_on_without(&self, shown: &str) {
        let done = self.resume();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{said}");
        assert!(said.contains("did not reach the disk"), "{said}");
        let now = self.shown();
        let rest = now.strip_prefix(shown).expect("nothing is shown otherwise");
        let last = shown.lines().last().unwrap();
        // The last visible event may be repeated when everything died.
        let rest = rest.strip_prefix(&format!("{last}\n")).unwrap_or(rest);
        assert_eq!(rest, "end 50\n");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.dcrun(&["rm", "t"]).output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// How far a journal goes.
#[derive(Clone, Copy, Debug)]
struct Journal {
    tail: usize,
    durable: usize,
}

impl Journal {
    fn of(image: &Path) -> Journal {
        let word = |offset: usize| {
            let mut bytes = [0; 8];
            let file = fs::File::open(image)?;
            file.read_exact_at(&mut bytes, (LIVE_OFFSET + offset) as u64)?;
            std::io::Result::Ok(u64::from_le_bytes(bytes))
        };
        let read = |offset| word(offset).unwrap_or(0);
        let tag = read(std::mem::offset_of!(Live, published)) + 1;
        let offset = |word: u64| match word >> 32 == tag {
            true => word as u32 as usize,
            false => 0,
        };
        Journal {
            tail: offset(read(std::mem::offset_of!(Live, journal))),
            durable: offset(read(std::mem::offset_of!(Live, journal_durable))),
        }
    }

    /// Bytes that a power loss may take.
    fn loose(self) -> usize {
        self.tail.saturating_sub(self.durable)
    }
}

fn flip(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
}

#[test]
fn a_whole_journal_is_replayed_to_its_end() {
    let run = Run::new("whole");
    run.killed();
    let done = run.resume();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(!said.contains("did not reach the disk"), "{said}");
    assert!(run.shown().ends_with("end 50\n"), "{}", run.shown());
}

#[test]
fn what_was_not_durable_yet_is_left_out_and_said() {
    for part in [0, 1, 2] {
        let run = Run::new(&format!("loose-{part}"));
        let journal = run.killed();
        let shown = run.shown();
        // (How much it is depends on what Python does before.)
        assert!(journal.durable > 200, "{journal:?}");
        let loose = journal.loose();
        run.lose_power();
        match part {
            // One byte near the end, the middle of it as zeros, all of it from its first byte.
            0 => run.change(journal.tail - 30, flip, 1),
            1 => run.change(journal.durable + loose / 2, |b| b.fill(0), loose / 2),
            _ => run.change(journal.durable, |b| b.fill(0), loose),
        }
        run.goes_on_without(&shown);
    }
}

#[test]
fn what_was_durable_and_is_not_there_stops_the_run() {
    let run = Run::new("damaged");
    let journal = run.killed();
    let shown = run.shown();
    // The first without a loss of power: then all of it must be there.
    for (at, len) in [(journal.tail - 30, 1), (20, 1), (journal.durable / 2, 64)] {
        if at < journal.durable {
            run.lose_power();
        }
        run.change(at, flip, len);
        let refused = run.resume();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(125), "{said}");
        assert!(said.contains("it is damaged: its journal"), "{said}");
        assert!(said.contains("--fresh"), "{said}");
        assert_eq!(run.shown(), shown, "nothing is shown");
        run.change(at, flip, len);
    }
    // The right bytes are back, and with them the run.
    let done = run.resume();
    assert!(done.status.success());
    assert!(run.shown().ends_with("end 50\n"), "{}", run.shown());
}
