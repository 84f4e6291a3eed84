//! CRIU beside us: how long a program stands still for a checkpoint, and how
//! long it takes to come back.
//!
//! The guest reads the clock without pause and writes, twenty times a second,
//! the longest gap it saw, so that both are measured by the same witness from
//! inside. CRIU needs root, and is asked for one dump at a time; we commit at
//! every line the guest writes. DMTCP is no package of Debian 12.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::bench::Bench;
use crate::failure::{Doing, Failure, Outcome};
use crate::guest;
use crate::hosted::{Run, Under, kill_now, monotonic_ns};
use crate::report::{Cell, Report, Table};
use crate::sample::Sample;

const PATIENCE: Duration = Duration::from_secs(30);

pub fn measure(bench: &Bench) -> Outcome<Report> {
    let mut report = Report::new("peers", "Peers");
    let mut stops = Table::new(
        "Standing still for a checkpoint, ms, as the program sees it",
        &[
            "who",
            "MB resident",
            "checkpoints",
            "min",
            "p50",
            "whole command p50",
        ],
    );
    let mut returns = Table::new(
        "Coming back, ms, until the first instruction of the program",
        &["who", "MB resident", "times", "min", "p50", "from"],
    );
    let criu = usable(&bench.criu);
    let count = bench.either(2, 7);
    for mb in bench.either([1, 64], [1, 256]) {
        bench.say(&format!("peers: {mb} MB"));
        let alone = gaps(bench, Under::Nothing, mb, count)?;
        stop_row(
            &mut stops,
            "nothing: other programs' noise",
            mb,
            &alone,
            None,
        );
        let ours = gaps(bench, Under::Dcrun, mb, count)?;
        stop_row(&mut stops, "dcrun", mb, &ours, None);
        for (who, cold) in [("dcrun, warm", false), ("dcrun, cold", true)] {
            let back = ours_back(bench, mb, count, cold)?;
            let from = if cold {
                "the start of dcrun"
            } else {
                "the kill"
            };
            return_row(&mut returns, who, mb, &back, from);
        }
        let Ok(version) = &criu else {
            continue;
        };
        match Criu::new(bench, mb).and_then(|mut criu| criu.measure(count)) {
            Ok(theirs) => {
                stop_row(&mut stops, version, mb, &theirs.gaps, Some(&theirs.command));
                match &theirs.back {
                    Ok(back) => return_row(&mut returns, version, mb, back, "the start of criu"),
                    Err(why) => report.note(format!("CRIU, {mb} MB, not restored: {why}")),
                }
                let ratio = ours.median() / theirs.gaps.median();
                report.goal(format!("stop time beside CRIU's, {mb} MB"), 1.0, "x", ratio);
            }
            Err(why) => report.note(format!("CRIU, {mb} MB: {why}")),
        }
    }
    if let Err(why) = criu {
        report.note(format!("CRIU was not measured: {why}"));
    }
    report.tables.extend([stops, returns]);
    report.note("DMTCP was not measured: it is not in Debian 12.");
    Ok(report)
}

fn stop_row(table: &mut Table, who: &str, mb: usize, gaps: &Sample, command: Option<&Sample>) {
    let whole = command.map_or(f64::NAN, Sample::median);
    table.row([
        Cell::text(who),
        Cell::whole(mb),
        Cell::whole(gaps.len()),
        Cell::Figure(gaps.min(), 3),
        Cell::Figure(gaps.median(), 3),
        Cell::Figure(whole, 1),
    ]);
}

fn return_row(table: &mut Table, who: &str, mb: usize, back: &Sample, from: &str) {
    table.row([
        Cell::text(who),
        Cell::whole(mb),
        Cell::whole(back.len()),
        Cell::Figure(back.min(), 2),
        Cell::Figure(back.median(), 2),
        Cell::text(from),
    ]);
}

/// The version of a CRIU that works on this machine.
fn usable(criu: &Path) -> Outcome<String> {
    let ask = |argument: &str| {
        Command::new(criu)
            .arg(argument)
            .output()
            .doing(|| format!("run {}", criu.display()))
    };
    let version = String::from_utf8_lossy(&ask("--version")?.stdout).into_owned();
    let version = version
        .lines()
        .next()
        .unwrap_or("?")
        .replace("Version:", "CRIU");
    let checked = ask("check")?;
    if checked.status.success() {
        return Ok(version);
    }
    let complaint = String::from_utf8_lossy(&checked.stderr).into_owned();
    let first = complaint.lines().next().unwrap_or_default();
    Err(Failure::new(format!(
        "{version} does not work on this kernel: {first} (another one is taken with --criu PATH)"
    )))
}

/// A spinning guest whose lines go to a file.
struct Spinner {
    child: Child,
    lines: PathBuf,
}

impl Spinner {
    fn start(command: &mut Command, lines: &Path, mb: usize) -> Outcome<Spinner> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(lines)
            .doing(|| format!("open {}", lines.display()))?;
        let child = command
            .arg(mb.to_string())
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .doing(|| "start spin".to_owned())?;
        Ok(Spinner {
            child,
            lines: lines.to_owned(),
        })
    }

    /// Every line so far: when it was written (ns), the longest gap before it (ms).
    fn seen(&self) -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(&self.lines).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let (at, gap) = line.split_once(' ')?;
                Some((at.parse().ok()?, gap.parse::<f64>().ok()? / 1e6))
            })
            .collect()
    }

    /// Waits for a line written after `ns`, and says when that was.
    fn line_after(&self, ns: u64) -> Outcome<u64> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some((at, _)) = self.seen().into_iter().find(|line| line.0 > ns) {
                return Ok(at);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Failure::new("the program wrote nothing more"))
    }

    /// As long as a few lines take.
    fn settle(&self) -> Outcome<u64> {
        let first = self.line_after(monotonic_ns())?;
        self.line_after(first)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file for a guest's lines, without those of an earlier guest.
fn empty(bench: &Bench, name: &str) -> PathBuf {
    let file = bench.file(name);
    let _ = std::fs::remove_file(&file);
    file
}

/// The longest gap of each line, ms. Hosted, each line is a commit.
fn gaps(bench: &Bench, under: Under, mb: usize, count: usize) -> Outcome<Sample> {
    let program = guest::compile(bench, &guest::SPIN)?;
    let run = Run::new(bench, under);
    let lines = empty(bench, "gaps");
    let spinner = Spinner::start(&mut run.command(&program)?, &lines, mb)?;
    let settled = spinner.settle()?;
    let mut last = settled;
    for _ in 0..count * 4 {
        last = spinner.line_after(last)?;
    }
    let gaps = spinner.seen().into_iter().filter(|line| line.0 > settled);
    Ok(Sample::new(gaps.map(|line| line.1).collect()))
}

/// ms until a killed program runs again.
fn ours_back(bench: &Bench, mb: usize, count: usize, cold: bool) -> Outcome<Sample> {
    let program = guest::compile(bench, &guest::SPIN)?;
    let run = Run::new(bench, Under::Dcrun);
    let lines = empty(bench, "back");
    let mut spinner = Spinner::start(&mut run.command(&program)?, &lines, mb)?;
    let mut taken = Vec::new();
    for _ in 0..count {
        spinner.settle()?;
        let worker = run.worker()?;
        let mut since = if cold {
            kill_now(Pid::from_raw(spinner.child.id() as i32))?
        } else {
            kill_now(worker)?
        };
        if cold {
            let _ = spinner.child.wait();
            since = monotonic_ns();
            spinner = Spinner::start(&mut run.command(&program)?, &lines, mb)?;
        }
        taken.push((spinner.line_after(since)? - since) as f64 / 1e6);
    }
    Ok(Sample::new(taken))
}

/// One guest under CRIU.
struct Criu<'a> {
    bench: &'a Bench,
    images: PathBuf,
    spinner: Spinner,
}

struct Theirs {
    gaps: Sample,
    command: Sample,
    /// Or why it did not come back.
    back: Outcome<Sample>,
}

impl<'a> Criu<'a> {
    fn new(bench: &'a Bench, mb: usize) -> Outcome<Criu<'a>> {
        let program = guest::compile(bench, &guest::SPIN)?;
        let images = bench.file("criu");
        std::fs::create_dir_all(&images).doing(|| format!("make {}", images.display()))?;
        // A session of its own: no terminal has to be carried along.
        let mut command = Command::new("setsid");
        command.arg(program).stderr(Stdio::null());
        let spinner = Spinner::start(&mut command, &empty(bench, "criu-lines"), mb)?;
        Ok(Criu {
            bench,
            images,
            spinner,
        })
    }

    fn measure(&mut self, count: usize) -> Outcome<Theirs> {
        let (mut gaps, mut commands) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let begun = self.spinner.settle()?;
            let started = Instant::now();
            self.criu(&["dump", "--leave-running", "-t", &self.pid()])?;
            commands.push(started.elapsed().as_secs_f64() * 1000.0);
            let done = monotonic_ns();
            let last = self.spinner.line_after(done)?;
            let seen = self.spinner.seen().into_iter();
            let during = seen.filter(|line| line.0 > begun && line.0 <= last);
            gaps.push(during.map(|line| line.1).fold(0.0, f64::max));
        }
        Ok(Theirs {
            gaps: Sample::new(gaps),
            command: Sample::new(commands),
            back: self.back(count),
        })
    }

    /// ms from the start of the restore to the first instruction.
    fn back(&mut self, count: usize) -> Outcome<Sample> {
        let mut back = Vec::new();
        for _ in 0..count {
            self.spinner.settle()?;
            self.criu(&["dump", "-t", &self.pid()])?;
            // A zombie would hold the pid that the restored program needs.
            let _ = self.spinner.child.wait();
            let since = monotonic_ns();
            self.criu(&["restore", "-d"])?;
            back.push((self.spinner.line_after(since)? - since) as f64 / 1e6);
        }
        Ok(Sample::new(back))
    }

    /// The restored program has it again.
    fn pid(&self) -> String {
        self.spinner.child.id().to_string()
    }

    fn criu(&self, arguments: &[&str]) -> Outcome<()> {
        let done = Command::new(&self.bench.criu)
            .args(arguments)
            .arg("-D")
            .arg(&self.images)
            .stdin(Stdio::null())
            .output()
            .doing(|| format!("run {}", self.bench.criu.display()))?;
        if done.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        // The first error is the cause, the others follow from it.
        let error = complaint.lines().find(|line| line.contains("Error"));
        Err(Failure::new(format!(
            "criu {}: {}: {}",
            arguments[0],
            done.status,
            error.unwrap_or_default()
        )))
    }
}

impl Drop for Criu<'_> {
    fn drop(&mut self) {
        // A restored program is no child of ours any more.
        let _ = kill_now(Pid::from_raw(self.spinner.child.id() as i32));
    }
}
