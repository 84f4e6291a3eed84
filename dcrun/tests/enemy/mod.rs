//! A killed run, its images put aside, and the ways to damage them.

mod damage;

use std::fs::{self, File, OpenOptions};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dc_image::header::{FRAMES_OFFSET, JOURNAL_OFFSET, LIVE_OFFSET, Live, TABLE_OFFSET};
use dc_image::run::{
    CONTENTS_OFFSET, PROCESSES_OFFSET, Process, RUN_OFFSET, Run, SHARED_OFFSET, Shared,
};
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Right,
    Refused(String),
    Wrong(String),
}

/// A run that was killed while it waited for the file `go`.
pub struct Victim {
    dir: PathBuf,
    /// What belongs to it, as it was when it was killed, and in an earlier state.
    whole: Vec<(PathBuf, Sparse)>,
    older: Vec<(PathBuf, Sparse)>,
    /// The image of another run of the same program.
    other: Sparse,
    shown_before: String,
    /// What a whole image leads to.
    expected: std::cell::OnceCell<String>,
}

/// A file of which most is holes.
struct Sparse {
    len: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    fn of(path: &Path) -> Sparse {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let mut parts = Vec::new();
        let seek = |at: u64, whence| nix::unistd::lseek(&file, at as i64, whence).ok();
        let mut at = 0;
        while let Some(from) = seek(at, nix::unistd::Whence::SeekData) {
            let to = seek(from as u64, nix::unistd::Whence::SeekHole).unwrap() as u64;
            let mut bytes = vec![0; (to - from as u64) as usize];
            file.read_exact_at(&mut bytes, from as u64).unwrap();
            parts.push((from as u64, bytes));
            at = to;
        }
        Sparse { len, parts }
    }

    fn write(&self, path: &Path) {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .unwrap();
        file.set_len(self.len).unwrap();
        for (at, bytes) in &self.parts {
            file.write_all_at(bytes, *at).unwrap();
        }
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut found = vec![0; len];
        for (from, bytes) in &self.parts {
            let (a, b) = (
                at.max(*from),
                (at + len as u64).min(from + bytes.len() as u64),
            );
            if a < b {
                let to = &mut found[(a - at) as usize..(b - at) as usize];
                to.copy_from_slice(&bytes[(a - from) as usize..(b - from) as usize]);
            }
        }
        found
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

impl Victim {
    fn new(name: &str, program: &str) -> Victim {
        let dir = std::env::temp_dir().join(format!("dcrun-enemy-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("program.py"), program).unwrap();
        Victim {
            dir,
            whole: Vec::new(),
            older: Vec::new(),
            other: Sparse {
                len: 0,
                parts: Vec::new(),
            },
            shown_before: String::new(),
            expected: std::cell::OnceCell::new(),
        }
    }

    pub fn killed(name: &str, program: &str, options: &[&str]) -> Victim {
        let mut victim = Victim::new(name, program);
        // Another run of it, whose image is taken; and an earlier moment of this one.
        victim.run_and_kill("o", options);
        victim.other = Sparse::of(&victim.image("o"));
        // What was killed may take a moment to end, and a live run is not removed.
        let begun = std::time::Instant::now();
        while !victim.dcrun(&["rm", "o"]).status().unwrap().success() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(20));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        victim.run_and_kill("t", options);
        victim.older = victim.aside("t");
        // (It goes on for a moment, and is killed again.)
        victim.shown_before = victim.shown();
        victim.resume_and_kill();
        victim.shown_before = victim.shown();
        victim.whole = victim.aside("t");
        victim
    }

    /// A run that was killed behind a commit (`older`), and once more when the next one had
    /// stored all that comes before its barrier (`whole`).
    pub fn killed_before_it_publishes(name: &str, program: &str, options: &[&str]) -> Victim {
        let mut victim = Victim::new(name, program);
        victim.run_and_kill("t", options);
        victim.older = victim.aside("t");
        victim.shown_before = victim.shown();
        let mut keeper = victim
            .dcrun(&["resume", "t"])
            .env("DCRUN_FAULT", "before-publish:1")
            .stdout(victim.out())
            .spawn()
            .unwrap();
        let worker = std::cell::Cell::new(None);
        victim.wait_for("it runs", || {
            let run = victim.listed("t");
            worker.set(run["worker_pid"].as_i64());
            run["state"] == "running" && worker.get().is_some()
        });
        let worker = worker.get().unwrap();
        // The keeper shall not see the death.
        let pid = nix::unistd::Pid::from_raw(keeper.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        fs::write(victim.dir.join("more"), "").unwrap();
        let status = format!("/proc/{worker}/status");
        victim.wait_for("the next commit", || {
            fs::read_to_string(&status)
                .unwrap_or_default()
                .contains("State:\tZ")
        });
        victim.whole = victim.aside("t");
        victim.kill_all("t", &mut keeper);
        victim
    }

    /// A run that was killed when it had shown `last`, which nothing uncertain came before.
    pub fn killed_behind(name: &str, program: &str, options: &[&str], last: &str) -> Victim {
        let mut victim = Victim::new(name, program);
        let args = [
            &["--name", "t"],
            options,
            &["/usr/bin/python3", "program.py"],
        ]
        .concat();
        let mut keeper = victim.dcrun(&args).stdout(victim.out()).spawn().unwrap();
        victim.wait_for("it talks", || victim.shown().ends_with(last));
        victim.kill_all("t", &mut keeper);
        victim.shown_before = victim.shown();
        victim.whole = victim.aside("t");
        victim
    }

    /// Of every sector of the journal that was not made durable: lost, or there.
    pub fn lose_journal(&self, seed: u64) {
        let mut random = Random(seed);
        self.put_back();
        let (path, whole) = &self.whole[0];
        let word = |at: usize| {
            let bytes = whole.read((LIVE_OFFSET + at) as u64, 8);
            u64::from_ne_bytes(bytes.try_into().unwrap())
        };
        let (tail, durable) = (
            word(offset_of!(Live, journal)),
            word(offset_of!(Live, journal_durable)),
        );
        let durable = match tail >> 32 == durable >> 32 {
            true => durable & 0xffff_ffff,
            false => 0,
        };
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let from = JOURNAL_OFFSET as u64 + durable;
        let end = JOURNAL_OFFSET as u64 + (tail & 0xffff_ffff);
        let mut at = from;
        while at < end {
            let next = (at / 512 + 1) * 512;
            if random.below(4) > 0 {
                let zeros = vec![0; (next.min(end) - at) as usize];
                file.write_all_at(&zeros, at).unwrap();
            }
            at = next;
        }
        let at = LIVE_OFFSET + offset_of!(Live, boot_sum);
        file.write_all_at(&77u64.to_ne_bytes(), at as u64).unwrap();
    }

    /// Of every sector what was there before, or what was stored since; on a machine that was
    /// started anew.
    pub fn lose_power(&self, seed: u64) {
        let mut random = Random(seed);
        self.put_back();
        let new_in_256 = [20, 128, 236][random.below(3) as usize];
        for ((path, new), (_, old)) in self.whole.iter().zip(&self.older) {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            for (from, bytes) in &new.parts {
                for (nth, sector) in bytes.chunks(512).enumerate() {
                    let at = from + nth as u64 * 512;
                    let before = old.read(at, sector.len());
                    if before != sector && random.below(256) >= new_in_256 {
                        file.write_all_at(&before, at).unwrap();
                    }
                }
            }
        }
        let file = OpenOptions::new()
            .write(true)
            .open(&self.whole[0].0)
            .unwrap();
        let at = LIVE_OFFSET + offset_of!(Live, boot_sum);
        file.write_all_at(&77u64.to_ne_bytes(), at as u64).unwrap();
    }

    /// It must go on from the commit. Says how many lines came again.
    pub fn resume_after_power_failure(&self) -> Result<usize, String> {
        fs::write(self.dir.join("go"), "").unwrap();
        let done = self
            .dcrun(&["resume", "t"])
            .stdout(self.out())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let shown = self.shown();
        let rest = shown.strip_prefix(&self.shown_before).unwrap_or("");
        // What comes again is what was shown last; then comes what always does, but for
        // the time.
        let timeless = |text: &str| -> Vec<String> {
            let lines = text.lines();
            lines
                .map(|line| match line.split_once("more ") {
                    Some(_) => "more".to_owned(),
                    None => line.to_owned(),
                })
                .collect()
        };
        let (rest, before) = (timeless(rest), timeless(&self.shown_before));
        let again = rest
            .iter()
            .position(|line| line == "more")
            .unwrap_or(rest.len());
        let (repeats, end) = rest.split_at(again);
        let expected = self.expected.get_or_init(|| end.join("\n"));
        let right = done.status.success()
            && end.last().is_some_and(|line| line == "end")
            && before.ends_with(repeats)
            && end.join("\n") == *expected;
        match right {
            true => Ok(repeats.len()),
            false => Err(format!("{:?}, said `{said}`, shown {rest:?}", done.status)),
        }
    }

    fn dcrun(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
        command
            .args(args)
            .env("DCRUN_STATE", self.dir.join("state"))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn out(&self) -> File {
        let mut options = OpenOptions::new();
        let path = self.dir.join("out");
        options.append(true).create(true).open(path).unwrap()
    }

    fn shown(&self) -> String {
        fs::read_to_string(self.dir.join("out")).unwrap_or_default()
    }

    fn run_and_kill(&self, name: &str, options: &[&str]) {
        let _ = fs::remove_file(self.dir.join("out"));
        for name in ["ready", "more", "again"] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        let mut args = vec!["--name", name];
        args.extend(options);
        args.extend(["/usr/bin/python3", "program.py"]);
        let mut keeper = self.dcrun(&args).stdout(self.out()).spawn().unwrap();
        let ready = self.dir.join("ready");
        self.wait_for("the program waits", || ready.exists());
        // Some calls more, so that a log has something.
        std::thread::sleep(Duration::from_millis(60));
        self.kill_all(name, &mut keeper);
    }

    /// Lets it run a little further, which commits.
    fn resume_and_kill(&self) {
        let mut keeper = self
            .dcrun(&["resume", "t"])
            .stdout(self.out())
            .spawn()
            .unwrap();
        fs::write(self.dir.join("more"), "").unwrap();
        let again = self.dir.join("again");
        self.wait_for("it has gone further", || again.exists());
        std::thread::sleep(Duration::from_millis(60));
        self.kill_all("t", &mut keeper);
    }

    fn listed(&self, name: &str) -> Value {
        let listed = self
            .dcrun(&["ps", "--json"])
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        let runs: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        let runs = runs.as_array().cloned().unwrap_or_default();
        let found = runs.into_iter().find(|run| run["name"] == name);
        found.unwrap_or_default()
    }

    fn kill_all(&self, name: &str, keeper: &mut std::process::Child) {
        let run = self.listed(name);
        let workers: Vec<i64> = run["processes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["pid"].as_i64())
            .chain(run["worker_pid"].as_i64())
            .collect();
        keeper.kill().unwrap();
        for pid in workers.into_iter().filter(|&pid| pid > 1) {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        keeper.wait().unwrap();
        self.wait_for("all are dead", || self.listed(name)["state"] == "dead");
    }

    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < until, "{what}: {}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn image(&self, name: &str) -> PathBuf {
        let record = fs::read(self.dir.join("state").join(name).join("run.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["image"].as_str().unwrap().into()
    }

    /// All that belongs to a run, and the files that it writes.
    fn aside(&self, name: &str) -> Vec<(PathBuf, Sparse)> {
        let image = self.image(name);
        let beside = fs::read_dir(image.parent().unwrap()).unwrap();
        let of_image = |path: &PathBuf| {
            let (path, image) = (path.to_str().unwrap(), image.to_str().unwrap());
            path.strip_prefix(image)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut files: Vec<PathBuf> = beside
            .map(|entry| entry.unwrap().path())
            .filter(of_image)
            .collect();
        files.sort();
        // The image itself comes first; what the program writes is no part of it.
        files.push(self.dir.join("shared"));
        files.retain(|path| path.exists());
        files
            .into_iter()
            .map(|path| {
                let contents = Sparse::of(&path);
                (path, contents)
            })
            .collect()
    }

    /// How many of the files are images.
    fn images(&self) -> usize {
        let is_image = |path: &Path| {
            let suffix = path.extension().and_then(|s| s.to_str());
            *path == self.whole[0].0 || suffix.is_some_and(|s| s.parse::<u32>().is_ok())
        };
        let images = self.whole.iter().filter(|(path, _)| is_image(path));
        images.count()
    }

    /// Everything as it was when it was killed.
    pub fn put_back(&self) {
        for (path, contents) in &self.whole {
            contents.write(path);
        }
        let run = self.dir.join("state").join("t");
        for name in ["done.json", "untold"] {
            let _ = fs::remove_file(run.join(name));
        }
        fs::write(self.dir.join("out"), &self.shown_before).unwrap();
        let _ = fs::remove_file(self.dir.join("go"));
    }

    pub fn resume(&self) -> Outcome {
        self.resume_with(None)
    }

    pub fn resume_with(&self, variable: Option<(&str, &str)>) -> Outcome {
        fs::write(self.dir.join("go"), "").unwrap();
        let mut keeper = self
            .dcrun(&["resume", "t"])
            .envs(variable)
            .stdout(self.out())
            .stderr(File::create(self.dir.join("said")).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = keeper.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let said = fs::read_to_string(self.dir.join("said")).unwrap();
                self.kill_all("t", &mut keeper);
                return Outcome::Wrong(format!("it hangs: {said}"));
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        let said = fs::read_to_string(self.dir.join("said")).unwrap();
        let shown = self.shown();
        let Some(rest) = shown.strip_prefix(&self.shown_before) else {
            return Outcome::Wrong("what was shown is gone".to_owned());
        };
        if status.code() == Some(125) {
            let by_name = said.contains("damaged") || said.contains("image");
            return match by_name && !said.contains("times from commit") && rest.is_empty() {
                true => Outcome::Refused(said),
                false => Outcome::Wrong(format!("refused with `{said}`, shown `{rest}`")),
            };
        }
        let expected = self.expected.get_or_init(|| {
            assert!(rest.ends_with("end\n"), "{said}\n{shown}");
            rest.to_owned()
        });
        match status.success() && rest == expected {
            true => Outcome::Right,
            false => Outcome::Wrong(format!(
                "{status}, said `{said}`, shown `{rest}`, not `{expected}`"
            )),
        }
    }

    /// `dcrun check-image`: what it says.
    pub fn check(&self) -> Result<String, String> {
        let done = self
            .dcrun(&["check-image", "t"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8(done.stderr).unwrap()),
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.dcrun(&["rm", "t"]).status();
        if std::env::var_os("DCRUN_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
