//! From a command line to a watched worker: which run is meant, is there one
//! to go on with, and everything a worker needs put in its place.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{SystemTime, UNIX_EPOCH};

use dc_image::boot::{Mode, conflict, high_fd, plant};
use dc_image::header::{IMAGE_MAX, checksum};
use dc_image::{FatalCode, Status};
use nix::sys::resource::{Resource, getrlimit};

use crate::background;
use crate::boot_block::{self, Contents};
use crate::check_image;
use crate::chosen::Chosen;
use crate::cli::{ResumeOptions, Rio, RioKind, RunOptions};
use crate::fault::{self, Fault};
use crate::found_images;
use crate::image;
use crate::image_lock;
use crate::keeper::{Keeper, forget_all};
use crate::limits;
use crate::machine::jump::{self, Plan};
use crate::machine::shared::SharedLive;
use crate::machine::{descriptors, process, signals, terminal};
use crate::message::{self, Doing, Failure, Outcome, say};
use crate::program;
use crate::record::Record;
use crate::remains::Remains;
use crate::reserve::{self, Reservation};
use crate::run_directory::{self, RunDirectory};
use crate::runtime_file::{self, Runtime};
use crate::standard::{self, Standard};
use crate::tree;
use crate::victims::Victims;
use crate::worker::{Starter, blank_boot_info};

/// Where the keeper holds the run's lock, the kernel's OOM counter, and the
/// counters of the worker.
pub const LOCK: i32 = high_fd::KEEPER;
const VMSTAT: i32 = high_fd::KEEPER + 1;
const COUNTERS: i32 = high_fd::COUNTERS;
/// What is left of dead workers, up to DEFERRED.
const REMAINS: i32 = high_fd::KEEPER + 8;
const _: () = assert!(REMAINS + Remains::PLACES <= high_fd::DEFERRED);

/// What does not outlive a keeper.
struct Session<'a> {
    runtime: Runtime,
    trace: Option<&'a Path>,
    verbose: bool,
    /// Nobody waits for the program's end.
    background: bool,
    fault: Fault,
    plant: u32,
    log_limit: u64,
    fold_ms: u64,
    conflict: u32,
}

impl<'a> Session<'a> {
    /// Before anything of an image is used.
    fn look_at(&self, record: &Record, file: &File, live: &SharedLive) -> Outcome<()> {
        match self.plant == plant::BLIND {
            true => Ok(()),
            false => check_image::examine(record, file, live).map(drop),
        }
    }

    fn new(trace: Option<&'a Path>, verbose: bool) -> Outcome<Session<'a>> {
        let variable = |name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        limits::check()?;
        Ok(Session {
            runtime: runtime_file::open()?,
            trace,
            verbose,
            background: false,
            fault: fault::parse_fault(variable(fault::FAULT_VARIABLE).as_deref())?,
            plant: fault::parse_plant(variable(fault::PLANT_VARIABLE).as_deref())?,
            log_limit: fault::parse_log_limit(variable(fault::LOG_LIMIT_VARIABLE).as_deref())?,
            fold_ms: fault::parse_fold(variable(fault::FOLD_VARIABLE).as_deref())?,
            conflict: conflict::STOP,
        })
    }
}

/// `dcrun run`: resumes the unfinished run that the command line means, or
/// makes a new one.
pub fn run(options: &RunOptions) -> Outcome<u8> {
    if let Some(group) = &options.group {
        return Err(Failure::own(format!(
            "--group {group}: runs cannot be committed together yet; leave it out, and each run \
             commits by itself"
        )));
    }
    // Before anything of ours is open.
    let inherited = inherited_descriptors()?;
    let standard = standard::given();
    let session = Session::new(options.trace.as_deref(), options.verbose)?;
    let cwd = std::env::current_dir().doing(|| "current directory: find it".to_owned())?;
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| derived_name(&options.command, &cwd));
    let run = run_directory::find(&name)?;
    let reservation = reserve::reserve(&inherited)?;
    run.lock(Some(reservation.number(LOCK)))?;

    let recorded = match run.record() {
        // What is damaged is discarded as well.
        Err(_) if options.fresh => {
            found_images::remove(&run, &found_images::of_run(&run, None))?;
            None
        }
        recorded => recorded?,
    };
    if let Some(record) = &recorded {
        image_lock::await_the_dead(&record.image)?;
    }
    if !options.fresh
        && let Some(status) = run.untold()?
    {
        say_ended(&run, status);
        if recorded
            .as_ref()
            .is_some_and(|record| record.command == options.command)
        {
            run.told();
            return Ok(status);
        }
    }
    if let Some(mut record) = recorded {
        if !options.fresh && run.done()?.is_none() {
            if record.command != options.command {
                return Err(Failure::own(format!(
                    "{name}: the unfinished run of this name is of another command (`{}`); \
                     `dcrun resume {name}` goes on with it, --fresh discards it",
                    record.command_line()
                )));
            }
            let differs = |option, there: &dyn Display| {
                Err(Failure::own(format!(
                    "{name}: its unfinished run has {option} {there}; leave {option} out to go on \
                     with it, or discard it with --fresh"
                )))
            };
            if options
                .protocol
                .is_some_and(|wanted| wanted != record.protocol)
            {
                return differs("--protocol", &record.protocol.name());
            }
            if options
                .rio
                .as_ref()
                .is_some_and(|wanted| *wanted != record.rio)
            {
                return differs("--rio", &record.rio);
            }
            record.interval_ms = options.interval.unwrap_or(record.interval_ms);
            record.suspend_on = options.suspend_on(record.suspend_on);
            note_standard(&run, &mut record, standard.clone());
            if let Some(file) = image::open(&record.image, &run)? {
                let live = image::live(&file)?;
                session.look_at(&record, &file, &live)?;
                if begun(&live) {
                    let keeper =
                        assemble(run, record, file, live, inherited, reservation, session)?;
                    return go_on(keeper);
                }
            } else {
                say(&format!(
                    "{name}: its image {} is gone, as after a restart of the machine with --rio \
                     tmpfs; starting from the beginning",
                    record.image.display()
                ));
            }
        }
        found_images::remove(&run, &[record.image].into())?;
    }
    run.clear()?;
    let mut record = match new_record(options, &run, &name, &cwd, standard) {
        Ok(record) => record,
        Err(failure) => {
            let _ = run.remove();
            return Err(failure);
        }
    };
    let file = image::create(&record.image, record.protocol.first(), &run)?;
    record.image_id =
        image::id(&file).doing(|| format!("image {}: read its header", record.image.display()))?;
    run.write_record(&record)?;
    if record.rio.kind != RioKind::Tmpfs {
        image::make_durable(&file, &record.image)?;
        run.make_durable()?;
    }
    let live = image::live(&file)?;
    assemble(run, record, file, live, inherited, reservation, session)?.keep(Mode::Fresh)
}

/// The standard descriptors that a run is given now, for when nobody can give it any.
fn note_standard(run: &RunDirectory, record: &mut Record, given: [Standard; 3]) {
    if record.standard != given {
        record.standard = given;
        // Else the record stays as it was, which is no reason not to go on.
        if let Err(failure) = run.write_record(record).and_then(|()| run.make_durable()) {
            say(&failure.to_string());
        }
    }
}

/// `dcrun resume NAME`.
pub fn resume(options: &ResumeOptions, name: &str) -> Outcome<u8> {
    let (run, mut record) = run_directory::existing(name)?;
    if options.background {
        background::become_keeper(&run, &record)?;
    }
    let mut inherited = inherited_descriptors()?;
    inherited.retain(|&number| number <= 2 || number != message::sink());
    let standard = standard::given();
    let mut session = Session::new(options.trace.as_deref(), options.verbose)?;
    session.background = options.background;
    let keep = options.keep.as_deref();
    let wanted = conflict::NAMES.iter().find(|(name, _)| keep == Some(*name));
    session.conflict = wanted.map_or(conflict::STOP, |(_, number)| *number);
    let reservation = reserve::reserve(&inherited)?;
    run.lock(Some(reservation.number(LOCK)))?;
    if let Some(status) = run.untold()? {
        say_ended(&run, status);
        if !options.background {
            run.told();
        }
        return Ok(status);
    }
    if run.done()?.is_some() {
        return Err(Failure::own(format!(
            "{name}: this run is done; there is nothing to go on with"
        )));
    }
    image_lock::await_the_dead(&record.image)?;
    let Some(file) = image::open(&record.image, &run)? else {
        return Err(Failure::own(format!(
            "{name}: its image {} is gone, as after a restart of the machine with --rio tmpfs; \
             `dcrun rm {name}` removes the rest",
            record.image.display()
        )));
    };
    // Relative names of a program that has not begun yet mean its directory.
    std::env::set_current_dir(&record.directory)
        .doing(|| format!("{name}: enter its directory {}", record.directory.display()))?;
    let live = image::live(&file)?;
    session.look_at(&record, &file, &live)?;
    if !options.background {
        note_standard(&run, &mut record, standard);
        // Who resumes by hand wants another try, whatever it crashed of.
        live.crashes.store(0, Relaxed);
    }
    let begun = begun(&live);
    if !begun {
        forget_all(&file, &record.image, &live)?;
    }
    let keeper = assemble(run, record, file, live, inherited, reservation, session)?;
    if begun {
        go_on(keeper)
    } else {
        keeper.keep(Mode::Fresh)
    }
}

/// Whether there is something to go on with.
fn begun(live: &SharedLive) -> bool {
    live.published.load(Acquire) > 0 || live.status.load(Acquire) == Status::Done as u32
}

/// The program of a finished run ended without its caller being told how.
fn say_ended(run: &RunDirectory, status: u8) {
    say(&format!(
        "{}: its program had ended already, with status {status}",
        run.name
    ));
}

fn go_on(mut keeper: Keeper) -> Outcome<u8> {
    if let Some(status) = keeper.had_ended() {
        say_ended(&keeper.run, status);
        return keeper.finish(status);
    }
    let live = &keeper.live;
    live.fatal.store(FatalCode::None as u32, Relaxed);
    live.kill_requested.store(0, Relaxed);
    live.status.store(Status::Recovering as u32, Release);
    say(&format!(
        "resuming {} from commit {}",
        keeper.run.name,
        live.published.load(Relaxed)
    ));
    keeper.keep(Mode::Cold)
}

/// The same command line, in the same directory, by the same user: the same name.
fn derived_name(command: &[OsString], cwd: &Path) -> String {
    let mut bytes = process::uid().to_ne_bytes().to_vec();
    for part in std::iter::once(cwd.as_os_str()).chain(command.iter().map(OsString::as_os_str)) {
        bytes.extend((part.len() as u64).to_ne_bytes());
        bytes.extend(part.as_bytes());
    }
    let base = Path::new(&command[0])
        .file_name()
        .unwrap_or(OsStr::new("run"));
    let mut readable: String = base
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._+-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(40)
        .collect();
    if readable.starts_with(['.', '-']) {
        readable.insert(0, '_');
    }
    format!("{readable}-{:010x}", checksum(&bytes) & 0xff_ffff_ffff)
}

fn new_record(
    options: &RunOptions,
    run: &RunDirectory,
    name: &str,
    cwd: &Path,
    standard: [Standard; 3],
) -> Outcome<Record> {
    let program = program::resolve(&options.command, std::env::var_os("PATH").as_deref())?;
    let rio = options.rio.clone().unwrap_or(Rio {
        kind: RioKind::Tmpfs,
        path: None,
    });
    let environment = std::env::vars_os()
        .filter(|(key, _)| !fault::VARIABLES.iter().any(|own| key == own))
        .map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            entry
        })
        .collect();
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Record {
        name: name.to_owned(),
        command: options.command.clone(),
        program: program.file,
        executed: program.executed,
        arguments: program.arguments,
        environment,
        directory: cwd.to_owned(),
        protocol: options.protocol.unwrap_or_default(),
        image: image::choose_path(run, &rio)?,
        image_id: 0,
        rio,
        interval_ms: options.interval.unwrap_or(0),
        suspend_on: options.suspend_on(0),
        standard,
        created_unix_s: created.as_secs(),
    })
}

/// Puts everything that workers need in its place.
fn assemble(
    run: RunDirectory,
    record: Record,
    file: File,
    live: SharedLive,
    inherited: Vec<RawFd>,
    reservation: Reservation,
    session: Session<'_>,
) -> Outcome<Keeper> {
    if !image_lock::lock(&file, &record.image)? {
        return Err(Failure::own(format!(
            "image {}: somebody else has locked it; resume when it is free",
            record.image.display()
        )));
    }
    let number = |place| reservation.number(place);
    let place = |what: &str, file: File, at: i32| {
        descriptors::place(file.into(), number(at))
            .doing(|| format!("descriptor of {what}: place it"))
    };
    let sink = message::sink();
    if descriptors::is_open(sink) {
        descriptors::copy(sink, number(high_fd::MESSAGES))
            .doing(|| "descriptor of messages: place it".to_owned())?;
    }
    if sink > 2 {
        descriptors::close(sink);
    }
    message::speak_through(number(high_fd::MESSAGES));
    if let Some(path) = session.trace {
        // Who recovers reads where it ends.
        let trace = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .doing(|| format!("trace {}: open it", path.display()))?;
        place("the trace", trace, high_fd::TRACE)?;
    }
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(&run.path)
        .doing(|| format!("{}: open its directory", run.name))?;
    place("the run's directory", directory, high_fd::RUN_DIR)?;
    place("the runtime", session.runtime.file, high_fd::RUNTIME)?;
    let images = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(record.image.parent().unwrap_or(Path::new("/")))
        .doing(|| format!("image {}: open its directory", record.image.display()))?;
    place("the image's directory", images, high_fd::IMAGES)?;
    let proc = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open("/proc")
        .doing(|| "/proc: open it".to_owned())?;
    place("/proc", proc, high_fd::PROC)?;
    place("the image", file, high_fd::RIO)?;
    let image = descriptors::adopt(number(high_fd::RIO));
    let victims = File::open("/proc/vmstat").ok().and_then(|file| {
        place("the OOM counter", file, VMSTAT).ok()?;
        Victims::new(descriptors::adopt(number(VMSTAT)))
    });

    let mut info = blank_boot_info();
    info.protocol = record.protocol.first() as u32;
    info.auto = u32::from(record.protocol == Chosen::Auto);
    info.log_limit = session.log_limit;
    info.fold_ms = session.fold_ms;
    info.conflict = session.conflict;
    info.fd_base = reservation.fd_base;
    info.inherited_end = end_of(&inherited, reservation.fd_base);
    info.durable = u32::from(record.rio.kind != RioKind::Tmpfs);
    info.interval_ms = record.interval_ms;
    info.rio_len = IMAGE_MAX as u64;
    info.nofile = reservation.nofile;
    info.memory_limits = crate::memory_limits::raise()?;
    info.stack_limit = getrlimit(Resource::RLIMIT_STACK)
        .doing(|| "limit of the stack: read it".to_owned())?
        .0;
    info.trace = u32::from(session.trace.is_some());
    info.fault_at = session.fault.count;
    info.plant = session.plant;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    info.vdso = boot_block::find_vdso(&maps).unwrap_or_default();
    let auxv = fs::read("/proc/self/auxv").doing(|| "/proc/self/auxv: read it".to_owned())?;
    let own = |words: &[OsString]| -> Vec<Vec<u8>> {
        words.iter().map(|word| word.clone().into_vec()).collect()
    };
    let tail = boot_block::build(
        &mut info,
        &Contents {
            program: record.program.as_os_str().as_bytes(),
            executed: record.executed.as_os_str().as_bytes(),
            arguments: &own(&record.arguments),
            environment: &own(&record.environment),
            auxv: &boot_block::read_auxv(&auxv),
            random: process::random(),
        },
    );
    process::become_subreaper().doing(|| "become the reaper of orphans".to_owned())?;
    tree::await_closed(&live);
    let inherited_signals = signals::take_over();
    live.suspend_wanted.store(0, Relaxed);
    live.commit_wanted.store(0, Relaxed);
    live.suspend_on.store(record.suspend_on, Relaxed);
    // From here on it can be asked for something.
    live.keeper_pid.store(process::pid() as u32, Release);
    info.sigmask = inherited_signals.mask();
    let plan = Plan {
        runtime: number(high_fd::RUNTIME),
        entry: session.runtime.executable.entry,
        segments: session.runtime.executable.segments,
        tail,
        inherited: inherited_signals,
        rseq: process::rseq_of_libc(),
        counters: number(COUNTERS),
        process_name: process_name(&record.executed),
        live: live.address(),
        companion: live.first().companion.as_ptr(),
        processes: live.first(),
        run: live.run(),
        keeper: process::pid(),
    };
    Ok(Keeper {
        starter: Starter {
            plan,
            info,
            can_set_tid: jump::may_choose_pid(),
        },
        run,
        record,
        live,
        image,
        reservation,
        inherited,
        remains: Remains::new(reservation.number(REMAINS)),
        terminal: terminal::remember(),
        victims,
        fault: session.fault.point,
        verbose: session.verbose,
        is_waited_for: !session.background,
    })
}

/// The last part of the executed file's name, cut as the kernel cuts it.
fn process_name(executed: &Path) -> CString {
    let name = executed.file_name().unwrap_or_default().as_bytes();
    CString::new(&name[..name.len().min(15)]).unwrap_or_default()
}

/// The descriptors that the program inherits, in order.
fn inherited_descriptors() -> Outcome<Vec<RawFd>> {
    let listing = || -> std::io::Result<Vec<RawFd>> {
        let mut numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        // The listing's own descriptor is among them, and closed by now.
        numbers.retain(|&number| descriptors::is_open(number));
        numbers.sort_unstable();
        Ok(numbers)
    };
    listing().doing(|| "/proc/self/fd: list it".to_owned())
}

/// Above all of these descriptors that a program may use.
fn end_of(inherited: &[RawFd], fd_base: RawFd) -> RawFd {
    let last = inherited.iter().filter(|&&number| number < fd_base).max();
    last.map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(words: &[&str], cwd: &str) -> String {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        derived_name(&words, Path::new(cwd))
    }

    #[test]
    fn processes_are_called_as_by_the_kernel() {
        assert_eq!(process_name(Path::new("./a")), CString::from(c"a"));
        assert_eq!(
            process_name(Path::new("/x/a-very-long-program")),
            CString::from(c"a-very-long-pro")
        );
    }

    #[test]
    fn names_tell_command_lines_apart() {
        assert_eq!(name(&["./app", "a"], "/x"), name(&["./app", "a"], "/x"));
        assert_ne!(name(&["./app", "a"], "/x"), name(&["./app", "a"], "/y"));
        assert_ne!(
            name(&["./app", "a", "b"], "/x"),
            name(&["./app", "ab"], "/x")
        );
        assert!(name(&["/bin/a b", "x"], "/").starts_with("a_b-"));
        assert!(crate::cli::parse_name(&name(&["/.hidden"], "/")).is_ok());
    }
}
