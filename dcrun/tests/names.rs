//! Names and directories that are not dcrun's: no command harms them, whatever it is told.

mod hostile;
mod stand_in;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hostile::{hostile_names, tree};
use stand_in::{State, finish, kill, sleeping};

/// Commands that take a name, with the words around it.
const COMMANDS: [&[&str]; 10] = [
    &["rm"],
    &["rm", "--force"],
    &["kill"],
    &["stats"],
    &["stats", "--json"],
    &["resume"],
    &["resume", "--detach"],
    &["suspend"],
    &["run", "--fresh", "--name", "NAME", "/bin/true", "exit:0"],
    &["run", "--name", "NAME", "/bin/true", "exit:0"],
];

fn private(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
}

/// The command with this name in its place.
fn named(state: &State, words: &[&str], name: &str) -> Output {
    let mut command = state.dcrun("");
    let takes_options = words.contains(&"NAME");
    command.args(
        words
            .iter()
            .map(|word| if *word == "NAME" { name } else { word }),
    );
    if !takes_options {
        command.arg("--").arg(name);
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn refused(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{what}: {output:?}");
    assert!(said.starts_with("dcrun: "), "{what}: {said}");
    let printable = |c: char| c == '\n' || !c.is_control();
    assert!(said.chars().all(printable), "{what}: {said:?}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    said
}

#[test]
fn hostile_names_are_refused_by_every_command() {
    let state = State::new("hostile-names");
    private(&state.path);
    let victim = state.path.with_extension("victim");
    let _ = fs::remove_dir_all(&victim);
    private(&victim);
    fs::write(victim.join("precious"), "precious").unwrap();
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let before = (tree(&state.path), tree(&victim));
    for name in hostile_names(&victim) {
        for words in COMMANDS {
            let output = named(&state, words, &name);
            refused(&output, &format!("{words:?} with {name:?}"));
        }
    }
    assert_eq!(before, (tree(&state.path), tree(&victim)));
    fs::remove_dir_all(&victim).unwrap();
}

#[test]
fn names_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let state = State::new("no-text");
    private(&state.path);
    let name = std::ffi::OsStr::from_bytes(b"r\xff\x1b[2J");
    for words in ["rm", "kill", "stats", "resume", "suspend"] {
        let output = state.dcrun(words).arg(name).output().unwrap();
        refused(&output, words);
    }
}

#[test]
fn only_what_is_a_run_is_removed() {
    let state = State::new("only-runs");
    private(&state.path);
    let foreign = state.path.join("notes");
    private(&foreign);
    fs::write(foreign.join("text"), "mine").unwrap();
    fs::write(state.path.join("file"), "mine").unwrap();
    let elsewhere = state.path.with_extension("elsewhere");
    let _ = fs::remove_dir_all(&elsewhere);
    private(&elsewhere);
    fs::write(elsewhere.join("run.json"), "{}").unwrap();
    symlink(&elsewhere, state.path.join("link")).unwrap();
    let before = (tree(&state.path), tree(&elsewhere));
    for name in ["notes", "file", "link", "absent"] {
        for words in [
            &["rm"] as &[&str],
            &["rm", "--force"],
            &["kill"],
            &["stats"],
            &["resume"],
            &["resume", "--detach"],
            &["suspend"],
        ] {
            refused(&named(&state, words, name), name);
        }
    }
    assert_eq!(before, (tree(&state.path), tree(&elsewhere)));
    fs::remove_dir_all(&elsewhere).unwrap();
}

#[test]
fn removing_follows_no_link() {
    let state = State::new("no-link");
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let victim = state.path.with_extension("victim");
    let _ = fs::remove_dir_all(&victim);
    private(&victim);
    fs::write(victim.join("precious"), "precious").unwrap();
    let run = state.path.join("r");
    symlink(&victim, run.join("directory")).unwrap();
    symlink(victim.join("precious"), run.join("file")).unwrap();
    fs::remove_file(run.join("image")).unwrap();
    symlink(victim.join("precious"), run.join("image")).unwrap();
    let before = tree(&victim);
    let (status, _, said) = finish(state.dcrun("rm r"));
    assert_eq!(status, 0, "{said}");
    assert!(!run.exists());
    assert_eq!(before, tree(&victim));
    fs::remove_dir_all(&victim).unwrap();
}

#[test]
fn a_live_run_is_left_alone() {
    let state = State::new("rm-alive");
    let (mut child, _) = sleeping(&state);
    let before: Vec<PathBuf> = tree(&state.path).into_keys().collect();
    for words in [&["rm"] as &[&str], &["rm", "--force"]] {
        assert!(refused(&named(&state, words, "r"), "alive").contains("alive"));
    }
    assert_eq!(before, tree(&state.path).into_keys().collect::<Vec<_>>());
    assert_eq!(finish(state.dcrun("kill r")).0, 0);
    child.wait().unwrap();
}

/// The image names a process that is none of the run's: `kill` must not believe it.
#[test]
fn killing_ends_only_the_runs_own_worker() {
    use dc_image::run::{PROCESSES_OFFSET, RUN_OFFSET};
    use std::os::unix::fs::FileExt;
    let state = State::new("kill-other");
    let (mut child, run) = sleeping(&state);
    let mut other = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let image = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(state.path.join("r/image"));
    let image = image.unwrap();
    let worker = run["worker_pid"].as_u64().unwrap() as u32;
    // The first entry of the table of processes: its own number, and its worker's.
    let table = (RUN_OFFSET + PROCESSES_OFFSET) as u64;
    let mut entry = [0u8; 8];
    image.read_exact_at(&mut entry, table).unwrap();
    assert_eq!(entry[4..], worker.to_ne_bytes());
    image
        .write_all_at(&other.id().to_ne_bytes(), table + 4)
        .unwrap();
    // The lock's file lies about the keeper as well.
    fs::write(state.path.join("r/keeper.pid"), format!("{}\n", other.id())).unwrap();
    assert_eq!(finish(state.dcrun("kill r")).0, 0);
    child.wait().unwrap();
    assert!(
        other.try_wait().unwrap().is_none(),
        "it killed another process"
    );
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn foreign_state_directories_are_refused_by_every_command() {
    let state = State::new("foreign-state");
    private(&state.path);
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let base = state.path.with_extension("way");
    let _ = fs::remove_dir_all(&base);
    private(&base);
    let copied = |name: &str| {
        let to = base.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&state.path)
            .arg(&to)
            .status()
            .unwrap();
        assert!(copied.success());
        to
    };
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let mut cases: Vec<(PathBuf, &str)> = Vec::new();
    for (at, bits) in [0o750, 0o770, 0o707, 0o777, 0o701, 0o1777]
        .into_iter()
        .enumerate()
    {
        let itself = copied(&format!("mode-{at}"));
        mode(&itself, bits);
        cases.push((itself, "others can enter it"));
    }
    for (at, bits) in [0o777, 0o757, 0o722].into_iter().enumerate() {
        let below = copied(&format!("writable-{at}/state"));
        mode(below.parent().unwrap(), bits);
        cases.push((below, "can be written by"));
    }
    let target = copied("target/state");
    symlink(&target, base.join("link")).unwrap();
    cases.push((base.join("link"), "symbolic link"));
    symlink(base.join("target"), base.join("on-the-way")).unwrap();
    cases.push((base.join("on-the-way/state"), "symbolic link"));
    symlink("circle", base.join("circle")).unwrap();
    cases.push((base.join("circle/state"), "symbolic link"));
    fs::write(base.join("file"), "").unwrap();
    cases.push((base.join("file"), "no directory"));
    cases.push((base.join("file/state"), "directory"));
    cases.push((PathBuf::from("/"), "root of all"));
    if nix::unistd::geteuid().is_root() {
        let theirs = copied("theirs");
        std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        cases.push((theirs, "belongs to user 65534"));
        let below = copied("owned/state");
        std::os::unix::fs::chown(below.parent().unwrap(), Some(65534), None).unwrap();
        cases.push((below, "belongs to user 65534"));
        let run = copied("run");
        std::os::unix::fs::chown(run.join("r"), Some(65534), None).unwrap();
        cases.push((run, "belongs to user 65534"));
    }
    let run = copied("open-run");
    mode(&run.join("r"), 0o755);
    cases.push((run, "others can enter it"));
    let before = tree(&base);
    for (path, word) in &cases {
        for words in [
            "ps",
            "ps --json",
            "rm r",
            "kill r",
            "stats r",
            "resume r",
            "resume --detach r",
            "resume --all",
            "suspend r",
            "suspend --all",
            "--name r /bin/true",
        ] {
            let mut command = state.dcrun(words);
            let output = command.env("DCRUN_STATE", path).output().unwrap();
            let what = format!("{words} in {}", path.display());
            if words.starts_with("ps") && path.join("r").exists() && word_of_run(path) {
                // The others are listed, and this one is said.
                assert_eq!(output.status.code(), Some(0), "{what}");
                assert!(
                    String::from_utf8_lossy(&output.stderr).contains(word),
                    "{output:?}"
                );
                continue;
            }
            let said = refused(&output, &what);
            assert!(said.contains(word), "{what}: {said}");
        }
    }
    assert_eq!(before, tree(&base), "and nothing was changed");
    fs::remove_dir_all(&base).unwrap();
}

/// Whether it is the run in it that cannot be trusted, and not the directory.
fn word_of_run(path: &Path) -> bool {
    path.ends_with("run") || path.ends_with("open-run")
}

/// What is fine stays fine: below /tmp, through `..`, and not there yet.
#[test]
fn state_directories_of_ones_own_are_taken() {
    let state = State::new("own-state");
    let base = PathBuf::from(format!("/tmp/dcrun-names-{}", std::process::id()));
    let _ = fs::remove_dir_all(&base);
    private(&base);
    for path in [base.join("a/b/c"), base.join("x/../y"), base.clone()] {
        private(&base.join("x"));
        let mut command = state.dcrun("--rio disk --name r /bin/true exit:3");
        let output = command.env("DCRUN_STATE", &path).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(3),
            "{}: {output:?}",
            path.display()
        );
    }
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn an_image_without_a_run_is_removed_by_its_name() {
    let state = State::new("image-alone");
    assert_eq!(
        finish(state.dcrun("--name alone /bin/true commit fatal")).0,
        125
    );
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(state.path.join("alone/run.json")).unwrap())
            .unwrap();
    let image = PathBuf::from(record["image"].as_str().unwrap());
    fs::remove_dir_all(state.path.join("alone")).unwrap();
    assert!(image.exists());
    assert_eq!(finish(state.dcrun("rm other")).0, 125);
    assert!(image.exists(), "it is of another name");
    assert_eq!(finish(state.dcrun("rm alone")).0, 0);
    assert!(!image.exists());
    assert_eq!(finish(state.dcrun("rm alone")).0, 125);
    assert!(!state.path.join("alone").exists(), "and rm made nothing");
}

/// Its directory was removed by hand while it lived: its memory is in use.
#[test]
fn the_image_of_a_live_run_without_directory_is_left_alone() {
    let state = State::new("image-alive");
    let mut child = state
        .dcrun("--name alive /bin/true commit sleep:20000")
        .spawn()
        .unwrap();
    let run = state.wait_for("two words", |run| run["commits"] == 2);
    fs::remove_dir_all(state.path.join("alive")).unwrap();
    let (status, _, said) = finish(state.dcrun("rm --force alive"));
    assert!(
        status == 125 && said.contains("in use by process"),
        "{said}"
    );
    kill(run["keeper_pid"].as_i64().unwrap(), "-9");
    child.wait().unwrap();
    let begun = std::time::Instant::now();
    while finish(state.dcrun("rm alive")).0 != 0 {
        assert!(begun.elapsed().as_secs() < 10, "its worker does not die");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn much_is_not_removed_without_a_word() {
    let state = State::new("much");
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let much = state.path.join("r/kept-much");
    let made = Command::new("fallocate")
        .args(["-l", "1100M"])
        .arg(&much)
        .status()
        .unwrap();
    assert!(made.success());
    let (status, _, said) = finish(state.dcrun("rm r"));
    assert_eq!(status, 125);
    assert!(said.contains("MiB") && said.contains("--force"), "{said}");
    assert!(much.exists() && state.path.join("r/run.json").exists());
    assert_eq!(finish(state.dcrun("rm --force r")).0, 0);
    assert!(!state.path.join("r").exists());
}

#[test]
fn anothers_image_is_not_taken_as_ones_own() {
    let state = State::new("others-image");
    let base = state.path.with_extension("images");
    let _ = fs::remove_dir_all(&base);
    private(&base);
    let image = base.join("image");
    let line = |name: &str, script: &str| {
        state.dcrun(&format!(
            "--rio disk:{} --name {name} /bin/true {script}",
            image.display()
        ))
    };
    assert_eq!(finish(line("one", "commit fatal exit:4")).0, 125);
    // What is beside it is nobody's but the user's.
    fs::write(base.join("image.new"), "mine").unwrap();
    let (status, _, said) = finish(line("two", "commit exit:3"));
    assert_eq!(status, 125, "{said}");
    assert!(said.contains("another run"), "{said}");
    assert_eq!(finish(line("one", "commit fatal exit:4")).0, 4);
    assert_eq!(fs::read_to_string(base.join("image.new")).unwrap(), "mine");
    fs::remove_dir_all(&base).unwrap();
}
