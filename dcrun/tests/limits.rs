//! Limits of resources: a program ends of them as it does natively, or dcrun says which is in its
//! way; nothing is told done that is not, and nothing is started over for ever.

mod place;
mod stand_in;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use place::Place;
use stand_in::{State, finish};

/// The command, in a shell with these limits.
fn limited(command: &Command, limits: &str) -> Command {
    let mut shell = Command::new("/bin/bash");
    shell.args(["-c", &format!("{limits}; exec \"$@\""), "-"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        shell.env(key, value.unwrap());
    }
    shell
}

#[test]
fn limits_that_leave_no_room_are_refused_by_name() {
    let state = State::new("no-room");
    for (limits, word) in [
        ("ulimit -f 100", "file size"),
        ("ulimit -f 1100000", "file size"),
    ] {
        let (status, _, said) = finish(limited(&state.script("", "commit exit:3"), limits));
        assert_eq!(status, 125, "{limits}: {said}");
        assert!(
            said.contains(word) && said.contains("ulimit"),
            "{limits}: {said}"
        );
        assert!(
            !state.path.join("r").exists(),
            "{limits}: nothing was begun"
        );
        let (status, out, _) = finish(limited(&state.dcrun("doctor"), limits));
        assert!(
            status == 1 && out.contains(&format!("limit of {word}")),
            "{limits}: {out}"
        );
    }
    let wide = "ulimit -v 300000000; ulimit -d 30000000; ulimit -f 4000000; ulimit -t 100";
    assert_eq!(
        finish(limited(&state.script("", "commit exit:3"), wide)).0,
        3
    );
}

/// Once the limit is raised, the run goes on from where it was.
#[test]
fn an_image_that_cannot_grow_stops_the_run() {
    const LIMIT: &str = "ulimit -f 2017952";
    let state = State::new("image-at-limit");
    let script = state.script("", "commit grow:1936 grow:4000 exit:6");
    let (status, _, said) = finish(limited(&script, LIMIT));
    assert_eq!(status, 125, "{said}");
    assert!(
        said.contains("cannot grow") && said.contains("dcrun resume r"),
        "{said}"
    );
    assert!(state.path.join("r/image").exists());
    assert_eq!(state.state_of_r(), "dead");
    assert_eq!(finish(state.dcrun("resume r")).0, 6);
    // Far from the limit it was no image that met it, but a file of the program.
    let state = State::new("file-at-limit");
    assert_eq!(
        finish(limited(&state.script("", "commit grow:4000 exit:6"), LIMIT)).0,
        153
    );
    assert_eq!(state.state_of_r(), "done");
}

/// The same with the runtime itself, whose image grows by what a program keeps.
#[test]
fn a_program_that_outgrows_the_limit_of_file_sizes_loses_nothing() {
    // Python ignores SIGXFSZ; others die of it.
    for (name, disposition) in [("ignored", "SIG_IGN"), ("default", "SIG_DFL")] {
        let place = Place::new(&format!("outgrows-{name}"));
        let program = format!(
            "
import signal
signal.signal(signal.SIGXFSZ, signal.{disposition})
kept = []
for i in range(110):
    kept.append(bytes([i % 251 + 1]) * 2000000)
    print(i, sum(part[7] for part in kept), flush=True)
"
        );
        let words = ["/usr/bin/python3", "-c", &program];
        let native = Command::new(words[0]).args(&words[1..]).output().unwrap();
        let line = [&["--protocol", "cpvs", "--name", "t"] as &[&str], &words].concat();
        let mut first = limited(&place.dcrun(&line), "ulimit -f 1897952");
        let first = first.current_dir(&place.0).output().unwrap();
        let said = String::from_utf8_lossy(&first.stderr);
        assert_eq!(first.status.code(), Some(125), "{name}: {said}");
        assert!(said.contains("limit of file size"), "{name}: {said}");
        let second = place.dcrun(&["resume", "t"]).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(0), "{name}: {said}");
        assert_eq!(
            [first.stdout, second.stdout].concat(),
            native.stdout,
            "{name}"
        );
    }
}

#[test]
fn processor_time_ends_a_program_as_natively() {
    // The soft limit sends SIGXCPU, the hard one SIGKILL.
    for (limits, status) in [("ulimit -St 1", 152), ("ulimit -t 1", 137)] {
        let state = State::new(&format!("processor-{status}"));
        let begun = Instant::now();
        let (found, _, said) = finish(limited(&state.script("", "commit spin"), limits));
        assert_eq!(found, status, "{limits}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(state.state_of_r(), "done");
        assert_eq!(state.ps()[0]["recoveries"], 0);
    }
}

#[test]
fn workers_that_never_run_are_not_started_for_ever() {
    let state = State::new("unborn");
    let begun = Instant::now();
    let (status, _, said) = finish(state.script("", "unborn"));
    assert_eq!(status, 137, "{said}");
    assert!(said.contains("SIGKILL 100 times from commit 0"), "{said}");
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "it did not even wait"
    );
    assert_eq!(state.state_of_r(), "dead");
    assert!(fs::metadata(state.path.join("r/image")).is_ok());
}

#[test]
fn groups_are_refused_with_a_word() {
    let state = State::new("group");
    for options in [
        "--group g",
        "--group g --protocol cbndv-2pc",
        "--fresh --group=g",
    ] {
        let (status, out, said) = finish(state.script(options, "say:ran exit:0"));
        assert_eq!((status, out.as_str()), (125, ""), "{options}");
        assert!(
            said.contains("--group g: runs cannot be committed together yet"),
            "{said}"
        );
        assert!(!state.path.join("r").exists());
    }
}

/// A child that has used its processor time is ended by the kernel, which is no failure of the run; and its own child, which
/// has the limit from it.
const TIME_IS_UP: &str = "
(ulimit -t 1; while :; do :; done); echo $?
(ulimit -t 1; (while :; do :; done); echo in $?); echo $?
(ulimit -S -t 1; while :; do :; done); echo $?
";

#[test]
fn a_child_ends_at_its_limit_of_processor_time() {
    let place = Place::new("limits-of-children");
    let mut run = place.dcrun(&["--fresh", "--name", "t", "/bin/bash", "-c", TIME_IS_UP]);
    let told = run.stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8(told.stdout).unwrap();
    assert_eq!(said, "137\nin 137\n0\n152\n", "{}", told.status);
    assert_eq!(told.status.code(), Some(0));
}
