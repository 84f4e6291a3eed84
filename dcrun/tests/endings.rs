//! The end of a run where something is in its way: the exit status is told, and until it is, kept.

mod stand_in;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use stand_in::{State, finish, kill};

/// A run that is about to end, whose final counters cannot be written.
fn ends_in_the_way(state: &State, script: &str) -> (std::process::Child, Value) {
    let child = state
        .script("", script)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let run = state.wait_for("two words", |run| run["commits"] == 2);
    fs::create_dir(state.path.join("r/done.json.new")).unwrap();
    (child, run)
}

#[test]
fn an_image_is_kept_until_its_end_is_on_record() {
    const EXITS: &str = "commit sleep:300 exit:7";
    for (script, signal, status) in [(EXITS, None, 7), ("commit sleep:20000", Some("-TERM"), 143)] {
        let state = State::new(&format!("kept-{status}"));
        let (child, run) = ends_in_the_way(&state, script);
        if let Some(signal) = signal {
            kill(run["worker_pid"].as_i64().unwrap(), signal);
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains("r: write done.json"), "{said}");
        let image = state.path.join("r/image");
        assert!(image.exists());
        assert_eq!(state.state_of_r(), "done");
        for _ in 0..2 {
            let (found, out, said) = finish(state.script("", script));
            assert_eq!((found, out.as_str()), (status, ""), "{said}");
            assert!(
                said.contains(&format!("had ended already, with status {status}")),
                "{said}"
            );
            assert!(image.exists());
        }
        fs::remove_dir(state.path.join("r/done.json.new")).unwrap();
        assert_eq!(finish(state.dcrun("resume r")).0, status);
        assert!(!image.exists());
        // On record and told: the next is a new run.
        assert_eq!(finish(state.script("--fresh", "commit exit:3")).0, 3);
    }
}

/// Needs a file system that can be filled: root only, else there is nothing to see.
#[test]
fn a_full_state_directory_loses_no_exit_status() {
    if !nix::unistd::geteuid().is_root() {
        println!("not root: no file system to fill");
        return;
    }
    let state = State::new("full");
    let images = state.path.with_extension("images");
    for path in [&state.path, &images] {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"])
        .arg(&state.path)
        .status()
        .unwrap();
    assert!(mounted.success());
    let rio = images.join("image");
    let line = |script: &str| {
        state.dcrun(&format!(
            "--rio disk:{} --name r /bin/true {script}",
            rio.display()
        ))
    };
    const SCRIPT: &str = "commit sleep:300 exit:7";
    let child = line(SCRIPT).stderr(Stdio::piped()).spawn().unwrap();
    state.wait_for("two words", |run| run["commits"] == 2);
    let filler = state.path.join("filler");
    let filled = fs::write(&filler, vec![1u8; 1 << 17]);
    assert!(filled.is_err(), "there is room left");
    let output = child.wait_with_output().unwrap();
    let kept = rio.exists();
    let again = finish(line(SCRIPT));
    fs::remove_file(&filler).unwrap();
    let last = finish(line(SCRIPT));
    let gone = !rio.exists();
    let unmounted = Command::new("umount").arg(&state.path).status().unwrap();
    fs::remove_dir_all(&images).unwrap();
    assert!(unmounted.success());
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(kept, "{output:?}");
    assert_eq!((again.0, last.0), (7, 7), "{again:?} {last:?}");
    assert!(
        last.2.contains("had ended already, with status 7"),
        "{last:?}"
    );
    assert!(gone);
}

#[test]
fn what_nobody_was_told_outlives_many_other_runs() {
    let state = State::new("pruned");
    assert_eq!(finish(state.script("", "commit exit:7")).0, 7);
    fs::write(state.path.join("r/untold"), "").unwrap();
    assert_eq!(
        finish(state.dcrun("--rio disk --name told /bin/true exit:1")).0,
        1
    );
    for nth in 0..70 {
        let line = format!("--rio disk --name other-{nth} /bin/true exit:0");
        assert_eq!(finish(state.dcrun(&line)).0, 0);
    }
    assert!(
        !state.path.join("told").exists(),
        "what was told goes in time"
    );
    assert_eq!(
        finish(state.script("", "commit exit:7")).2,
        "dcrun: r: its program had ended already, with status 7\n"
    );
}

#[test]
fn another_command_of_the_same_name_tells_it_first() {
    let state = State::new("told-first");
    let untold = || {
        assert_eq!(finish(state.script("--fresh", "commit exit:7")).0, 7);
        fs::write(state.path.join("r/untold"), "").unwrap();
    };
    untold();
    let (status, _, said) = finish(state.script("", "commit exit:3"));
    assert_eq!(status, 3);
    assert!(said.contains("had ended already, with status 7"), "{said}");
    untold();
    let (status, _, said) = finish(state.dcrun("rm r"));
    assert_eq!(status, 0);
    assert!(
        said.contains("with status 7, which nobody was told"),
        "{said}"
    );
}

/// Another file has taken the image's name meanwhile.
#[test]
fn the_end_removes_no_file_but_the_image() {
    let state = State::new("exchanged");
    let child = state
        .script("", "commit sleep:300 exit:7")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    state.wait_for("two words", |run| run["commits"] == 2);
    let image = state.path.join("r/image");
    fs::remove_file(&image).unwrap();
    fs::write(&image, "precious").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(fs::read_to_string(&image).unwrap(), "precious");
}
