//! Images as an enemy leaves them: whatever is damaged in one, its run is refused by name, or
//! goes on as if nothing had been.
//!
//! A real run is killed, keeper and all, while it waits, and its images are put aside. Then
//! many times: they are put back, one thing in them is damaged, and the run is resumed. It may
//! show nothing and say what is damaged, or show exactly what a whole image leads to.
//!
//! `DCRUN_DAMAGES` says how many images each test damages, `DCRUN_SEED` which ones:
//! `scripts/soak-images` makes it thousands.

mod enemy;

use enemy::{Outcome, Victim};

/// Memory of random bytes, output, and a log of reads: one process.
const ONE: &str = "
import hashlib, os, time
memory = [bytearray(os.urandom(4096) * 2) for _ in range(1500)]
for i in range(5):
    os.write(1, b'%d %s\\n' % (i, os.urandom(4).hex().encode()))
    memory[i][5] = i
for i in range(3):
    os.write(1, b'deterministic %d\\n' % i)
open('ready', 'w').close()
while not os.path.exists('more'): time.sleep(0.005)
os.write(1, b'more %d\\n' % time.time_ns())
open('again', 'w').close()
while not os.path.exists('go'): time.sleep(0.005)
os.write(1, hashlib.sha256(b''.join(memory)).hexdigest().encode() + b'\\n')
os.write(1, b'end\\n')
";

/// Four processes, with a pipe that is not empty, a shared offset, and one that has ended.
const TREE: &str = "
import hashlib, os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
kept, keep = os.pipe()
os.write(keep, b'kept in a pipe\\n')
shared = os.open('shared', os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.write(shared, b'0123456789' * 100)
os.lseek(shared, 0, 0)
def work(name):
    memory = [bytearray(os.urandom(4096)) for _ in range(200)]
    signal.sigwait([signal.SIGUSR1])
    with open(b'told-' + name, 'w') as told: told.write(hashlib.sha256(b''.join(memory)).hexdigest())
    os._exit(name[0] % 7)
children = []
for name in (b'a', b'b', b'c'):
    pid = os.fork()
    if pid == 0: work(name)
    children.append(pid)
ended = os.fork()
if ended == 0: os._exit(9)
memory = bytearray(os.urandom(1 << 20))
os.read(shared, 15)
time.sleep(0.2)
os.write(1, b'seen %d\\n' % time.time_ns())
open('ready', 'w').close()
while not os.path.exists('more'): time.sleep(0.005)
memory[77] = 7
os.write(1, b'more %d\\n' % time.time_ns())
open('again', 'w').close()
while not os.path.exists('go'): time.sleep(0.005)
os.write(1, b'shared offset %d\\n' % os.lseek(shared, 0, 1))
os.write(1, b'ended %d\\n' % os.waitpid(ended, 0)[1])
for pid in children: os.kill(pid, signal.SIGUSR1)
for pid in children: os.write(1, b'%d\\n' % os.waitpid(pid, 0)[1])
os.write(1, os.read(kept, 100))
for name in 'abc': os.write(1, open('told-' + name).read().encode() + b'\\n')
os.write(1, hashlib.sha256(memory).hexdigest().encode() + b'\\nend\\n')
";

/// Output that follows from what is committed: on a disk a power failure brings it again.
const TALK: &str = "
import os
for i in range(3): os.write(1, b'%d %s\\n' % (i, os.urandom(4).hex().encode()))
for i in range(60): os.write(1, b'deterministic %d\\n' % i)
while not os.path.exists('go'): pass
os.write(1, b'more 0\\n')
os.write(1, b'end\\n')
";

/// Thirty-one processes, which come back at once and get in each other's way.
const MANY: &str = "
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def wait():
    signal.sigwait([signal.SIGUSR1])
    os._exit(int.from_bytes(os.environb[b'PATH'][:1], 'big') % 7)
children = []
for n in range(30):
    pid = os.fork()
    if pid == 0: wait()
    children.append(pid)
time.sleep(0.2)
os.write(1, b'seen %d\\n' % time.time_ns())
open('ready', 'w').close()
while not os.path.exists('more'): time.sleep(0.005)
os.write(1, b'more %d\\n' % time.time_ns())
open('again', 'w').close()
while not os.path.exists('go'): time.sleep(0.005)
for pid in children: os.kill(pid, signal.SIGUSR1)
for pid in children: os.write(1, b'%d\\n' % os.waitpid(pid, 0)[1])
os.write(1, b'end\\n')
";

fn number(variable: &str, otherwise: u64) -> u64 {
    let said = std::env::var(variable).ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Damages images of a program, and says what came of it.
fn torment(name: &str, program: &str, options: &[&str]) {
    let times = number("DCRUN_DAMAGES", 24);
    let seed = number("DCRUN_SEED", 1);
    let victim = Victim::killed(name, program, options);
    let whole = victim.resume();
    assert_eq!(whole, Outcome::Right, "the image as it is");
    let (mut refused, mut right, mut wrong) = (0, 0, Vec::new());
    for nth in 0..times {
        victim.put_back();
        let what = victim.damage(seed << 32 | nth);
        match victim.resume() {
            Outcome::Right => right += 1,
            Outcome::Refused(_) => refused += 1,
            Outcome::Wrong(how) => wrong.push(format!("seed {seed}, number {nth}: {what}: {how}")),
        }
    }
    println!(
        "{name}: {times} damaged images: {refused} refused by name, {right} right, {} wrong",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        refused * 3 > times,
        "{refused} of {times}: is anything damaged at all?"
    );
    // The last word: it was no other cause that stopped them.
    victim.put_back();
    assert_eq!(victim.resume(), Outcome::Right);
}

#[test]
fn one_process_in_memory() {
    torment("memory", ONE, &[]);
}

#[test]
fn one_process_with_a_log() {
    torment("log", ONE, &["--protocol", "cbndvs-log"]);
}

#[test]
fn one_process_on_a_disk() {
    torment("disk", ONE, &["--rio", "disk", "--protocol", "cand"]);
}

#[test]
fn a_tree() {
    torment("tree", TREE, &[]);
}

#[test]
fn a_tree_on_a_disk() {
    torment("tree-disk", TREE, &["--rio", "disk"]);
}

/// A process that waits for the lock while it is made again keeps the registers of its
/// program: those of the processor are the keeper's then.
#[test]
fn many_processes_come_back_at_once() {
    let victim = Victim::killed("many", MANY, &["--rio", "disk"]);
    for nth in 0..15 {
        victim.put_back();
        assert_eq!(victim.resume(), Outcome::Right, "number {nth}");
    }
}

/// Where nothing is looked at, what these tests do leads to wrong memory with status 0.
#[test]
fn without_the_sums_damage_is_not_found() {
    let victim = Victim::killed("blind", ONE, &[]);
    assert_eq!(victim.resume(), Outcome::Right);
    let mut found = [0; 2];
    for blind in [false, true] {
        for nth in 0..6 {
            victim.put_back();
            victim.damage_frames(500 * nth..500 * (nth + 1));
            let outcome = victim.resume_with(blind.then_some(("DCRUN_PLANT", "blind")));
            let wrong = matches!(outcome, Outcome::Wrong(_));
            found[usize::from(blind)] += usize::from(wrong);
        }
    }
    assert!(found[0] == 0 && found[1] > 2, "{found:?}");
}

/// A power failure while a commit is on its way to the disk: every sector of 512 bytes that
/// was stored since the last barrier is there, or what was there before.
#[test]
fn a_power_failure_leaves_the_last_commit() {
    let times = number("DCRUN_DAMAGES", 24);
    let seed = number("DCRUN_SEED", 1);
    for (name, program, protocol) in [("power", ONE, "cbndvs"), ("power-tree", TREE, "cbndvs")] {
        let options = ["--rio", "disk", "--protocol", protocol];
        let victim = Victim::killed_before_it_publishes(name, program, &options);
        let mut repeated = 0;
        for nth in 0..times {
            victim.lose_power(seed << 32 | nth);
            match victim.resume_after_power_failure() {
                Ok(lines) => repeated += usize::from(lines > 0),
                Err(how) => panic!("{name}, seed {seed}, number {nth}: {how}"),
            }
        }
        // (Each dies at a commit, and what it has shown it has shown before that.)
        println!("{name}: {times} power failures, all right, {repeated} with output again");
    }
}

/// What was shown since the last commit may come again, and nothing else, and never in part.
#[test]
fn a_power_failure_may_bring_output_again() {
    let times = number("DCRUN_DAMAGES", 24);
    let seed = number("DCRUN_SEED", 1);
    let options = ["--rio", "disk", "--protocol", "cbndvs"];
    let victim = Victim::killed_behind("talk", TALK, &options, "deterministic 59\n");
    let (mut repeated, mut most) = (0, 0);
    for nth in 0..times {
        victim.lose_journal(seed << 32 | nth);
        match victim.resume_after_power_failure() {
            Ok(lines) => {
                repeated += usize::from(lines > 0);
                most = most.max(lines);
            }
            Err(how) => panic!("seed {seed}, number {nth}: {how}"),
        }
    }
    println!(
        "talk: {times} power failures, all right, {repeated} with output again, {most} lines at most"
    );
    assert!(
        repeated as u64 * 2 > times,
        "{repeated} of {times} lost anything"
    );
    assert!(
        most <= 61,
        "{most} lines: more than was shown since the last commit"
    );
}

#[test]
fn a_whole_image_is_said_to_be_whole_and_a_damaged_one_is_not() {
    let victim = Victim::killed("check", TREE, &[]);
    let said = victim.check();
    assert!(said.is_ok_and(|said| said.contains("its image is whole")));
    victim.damage_a_frame();
    let said = victim.check().unwrap_err();
    assert!(
        said.contains("it is damaged: process") && said.contains("--fresh"),
        "{said}"
    );
    victim.put_back();
    assert!(victim.check().is_ok());
}
