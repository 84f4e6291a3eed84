//! Every command with hostile names, and with files in a run's directory that are damaged or something else:
//! nothing outside of the run is changed or ended, and no command dies or hangs. (names.rs and records.rs say what
//! is answered.) `STORM_DAMAGES` says how many, `STORM_SEED` which.

mod hostile;
mod stand_in;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hostile::{damaged, hostile_names, numbers, tree};
use stand_in::{State, finish, sleeping};

/// Every command; NAME is put in its place. (`check` takes a file, and what takes no name refuses one.)
const COMMANDS: [&str; 27] = [
    "ps",
    "ps --json",
    "ps -- NAME",
    "stats -- NAME",
    "stats --json -- NAME",
    "check-image -- NAME",
    "check -- NAME",
    "doctor -- NAME",
    "doctor --json -- NAME",
    "kill -- NAME",
    "suspend -- NAME",
    "suspend --all -- NAME",
    "resume --all -- NAME",
    "service -- NAME",
    "resume --detach -- NAME",
    "--on-term NAME --name r /bin/true exit:3",
    "resume -- NAME",
    "resume --verbose --keep theirs -- NAME",
    "resume --keep ours -- NAME",
    "resume --keep NAME r",
    "--rio NAME --name r /bin/true exit:3",
    "--protocol NAME --name r /bin/true exit:3",
    "--interval NAME --name r /bin/true exit:3",
    "--rio disk --name NAME /bin/true commit fatal exit:5",
    "rm -- NAME",
    "--fresh --rio disk --name NAME /bin/true commit fatal exit:5",
    "rm --force -- NAME",
];

fn from_environment(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Runs it, with 20 seconds, and looks at how it ended; the status.
fn sound(state: &State, words: &str, name: &str) -> i32 {
    let command = state.dcrun("");
    let mut limited = Command::new("/usr/bin/timeout");
    limited.args(["-k", "1", "20"]).arg(command.get_program());
    for (key, value) in command.get_envs() {
        limited.env(key, value.unwrap());
    }
    let words = words.split(' ');
    limited.args(words.map(|word| if word == "NAME" { name } else { word }));
    let output = limited.stdin(Stdio::null()).output().unwrap();
    let what = format!("{:?}: {output:?}", limited.get_args());
    let status = output.status.code().expect(&what);
    // 124 and 137 are those of timeout(1); more are signals, as an abort's.
    assert!(status <= 127 && status != 124, "{what}");
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("panicked"), "{what}");
        let printable = |c: char| c == '\n' || !c.is_control();
        assert!(text.chars().all(printable), "{what}");
    }
    status
}

fn private(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
}

/// A directory and a process that are none of dcrun's.
struct Victims {
    path: PathBuf,
    process: Child,
    before: Vec<u8>,
}

impl Victims {
    fn new(state: &State) -> Victims {
        let path = state.path.with_extension("victims");
        let _ = fs::remove_dir_all(&path);
        private(&path.join("run/below"));
        for name in [
            "precious",
            "run/run.json",
            "run/keeper.pid",
            "run/below/file",
        ] {
            fs::write(path.join(name), format!("precious {name}")).unwrap();
        }
        let process = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let mut victims = Victims {
            path,
            process,
            before: Vec::new(),
        };
        victims.before = victims.now();
        victims
    }

    fn now(&self) -> Vec<u8> {
        format!("{:?}", tree(&self.path)).into_bytes()
    }

    fn are_unharmed(&mut self, what: &str) {
        assert!(self.now() == self.before, "{what}: a file was harmed");
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "{what}: a process was ended: {ended:?}");
    }
}

impl Drop for Victims {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[test]
fn every_command_with_hostile_names() {
    let state = State::new("no-harm-names");
    private(&state.path);
    let mut victims = Victims::new(&state);
    // One that can be resumed, and one that lives.
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    let mut child = state
        .dcrun("--rio disk --name alive /bin/true commit sleep:600000")
        .spawn()
        .unwrap();
    let alive = |runs: serde_json::Value| {
        let all = runs.as_array().unwrap().clone();
        all.iter()
            .find(|run| run["name"] == "alive" && run["commits"].as_u64() >= Some(2))
            .map(|run| run["worker_pid"].clone())
    };
    while alive(state.ps()).is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let worker = alive(state.ps());
    let before = tree(&state.path.join("r"));
    let mut played = 0;
    for name in hostile_names(&victims.path) {
        for words in COMMANDS.iter().filter(|words| words.contains("NAME")) {
            let status = sound(&state, words, &name);
            // (`doctor` takes a program, which may be there.)
            let refused =
                status == 125 || words.starts_with("doctor") && matches!(status, 1 | 126 | 127);
            assert!(refused, "{words} with {name:?}: {status}");
            played += 1;
        }
        victims.are_unharmed(&name);
        assert!(
            before == tree(&state.path.join("r")),
            "{name:?}: r was changed"
        );
        assert_eq!(alive(state.ps()), worker, "{name:?}");
        assert!(child.try_wait().unwrap().is_none(), "{name:?}");
    }
    println!("{played} commands with hostile names: 0 harmed, 0 died, 0 hung");
    assert_eq!(finish(state.dcrun("kill alive")).0, 0);
    child.wait().unwrap();
}

const FILES: [&str; 7] = [
    "run.json",
    "done.json",
    "keeper.pid",
    "messages",
    "output",
    "untold",
    "image.newest",
];

/// Puts something else where a file of a run is: damage as of a disk, or what others might place there.
fn damage(at: &Path, victims: &Victims, random: &mut impl FnMut(usize) -> usize) -> String {
    let whole = fs::read(at).unwrap_or_else(|_| b"4711      \n".to_vec());
    let _ = fs::remove_file(at);
    let target = ["precious", "run", "run/run.json", "run/below/file"][random(4)];
    let target = victims.path.join(target);
    match random(12) {
        // (Each command writes into the lock, whatever other names that has.)
        1 if !at.ends_with("keeper.pid") => {
            fs::hard_link(victims.path.join("precious"), at).unwrap()
        }
        2 => private(at),
        3 => {
            let made = Command::new("mkfifo").arg(at).status().unwrap();
            assert!(made.success());
        }
        4 => symlink(["/dev/zero", "/proc/self/mem", "/", "loop"][random(4)], at).unwrap(),
        5 => {
            let file = fs::File::create(at).unwrap();
            file.set_len([1, 4096, 129 << 20, 1 << 40][random(4)])
                .unwrap();
        }
        6 => fs::write(at, format!("{}\n", victims.process.id())).unwrap(),
        7 => {
            let number = [
                "-1",
                "1",
                "0",
                "99999999999999999999",
                "2147483648",
                "-9e99",
            ];
            fs::write(at, number[random(6)]).unwrap();
        }
        8 => {
            fs::write(at, &whole).unwrap();
            let mode = [0o000, 0o777, 0o4755, 0o200][random(4)];
            fs::set_permissions(at, PermissionsExt::from_mode(mode)).unwrap();
        }
        0 | 1 => symlink(&target, at).unwrap(),
        _ => match damaged(&whole, random) {
            Some(bytes) => fs::write(at, bytes).unwrap(),
            None => fs::write(at, b"\x1b]0;x\x07\0{\"").unwrap(),
        },
    }
    format!("{:?}", fs::symlink_metadata(at))
}

/// A run as it was left, again in its place.
fn put_back(saved: &Path, run: &Path) {
    let _ = fs::remove_dir_all(run);
    let copied = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([saved, run])
        .status();
    assert!(copied.unwrap().success());
}

#[test]
fn every_command_with_damaged_files() {
    let state = State::new("no-harm-files");
    private(&state.path);
    let mut victims = Victims::new(&state);
    // One that is to be resumed, and one that is done; and another one, which is left alone.
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    assert_eq!(
        finish(state.dcrun("--rio disk --name other /bin/true commit fatal exit:4")).0,
        125
    );
    let run = state.path.join("r");
    let saved = ["dead", "done"].map(|name| state.path.with_extension(name));
    for path in &saved {
        let _ = fs::remove_dir_all(path);
    }
    put_back(&run, &saved[0]);
    assert_eq!(finish(state.dcrun("resume r")).0, 5);
    put_back(&run, &saved[1]);
    let other = state.path.join("other");
    let before = tree(&other);
    let seed = from_environment("STORM_SEED", 1);
    let mut random = numbers(seed as u64);
    let count = from_environment("STORM_DAMAGES", 40);
    let mut statuses = std::collections::BTreeMap::new();
    for nth in 0..count {
        let file = FILES[nth % FILES.len()];
        let saved = &saved[random(2)];
        put_back(saved, &run);
        let how = damage(&run.join(file), &victims, &mut random);
        for words in COMMANDS {
            let what = format!("seed {seed}, damage {nth} of {file} in {saved:?}, {words}: {how}");
            let status = sound(&state, words, "r");
            *statuses.entry(status).or_insert(0) += 1;
            victims.are_unharmed(&what);
            assert!(before == tree(&other), "{what}: another run was changed");
        }
        // Whatever it was, it can be removed by then; but of a lock that is no file dcrun tells the user.
        let left = state.path.join("r").exists();
        assert!(
            !left || file == "keeper.pid",
            "seed {seed}, damage {nth} of {file}, {how}: it stays"
        );
    }
    println!(
        "{count} damaged files, every command: 0 harmed, 0 died, 0 hung; statuses {statuses:?}"
    );
    assert_eq!(finish(state.dcrun("resume other")).0, 4);
    for path in &saved {
        fs::remove_dir_all(path).unwrap();
    }
}

/// The same with the files of a run that lives: its own processes are all that `kill` ends.
#[test]
fn every_command_with_damaged_files_of_a_live_run() {
    let state = State::new("no-harm-live");
    private(&state.path);
    let mut victims = Victims::new(&state);
    let seed = from_environment("STORM_SEED", 1);
    let mut random = numbers(seed as u64 + 99);
    let count = from_environment("STORM_DAMAGES", 40) / 5;
    for nth in 0..count {
        let (mut child, _) = sleeping(&state);
        let file = FILES[nth % FILES.len()];
        let how = damage(&state.path.join("r").join(file), &victims, &mut random);
        let ends = |words: &&&str| ["kill", "suspend"].iter().any(|end| words.contains(end));
        for words in COMMANDS.iter().filter(|words| !ends(words)) {
            sound(&state, words, "r");
            victims.are_unharmed(&format!(
                "seed {seed}, damage {nth} of {file}, {words}: {how}"
            ));
        }
        let end = ["suspend", "kill"][nth % 2];
        sound(&state, &format!("{end} -- NAME"), "r");
        victims.are_unharmed(&format!(
            "seed {seed}, damage {nth} of {file}, {end}: {how}"
        ));
        let _ = child.kill();
        child.wait().unwrap();
        sound(&state, "kill -- NAME", "r");
        victims.are_unharmed(&format!("seed {seed}, damage {nth} of {file}, kill: {how}"));
        fs::remove_dir_all(&state.path).unwrap();
        private(&state.path);
    }
    println!("{count} damaged files of live runs: 0 harmed, 0 died, 0 hung");
}
