//! More input than a recovery can feed again, before anything is shown: it is committed on the way.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const PROGRAM: &str = "
import os
n, crc = 0, 0
while True:
    b = os.read(0, 20000)
    if not b: break
    n += len(b)
    for x in b[::97]: crc = (crc * 31 + x) % 1000000007
os.write(1, b'%d\\n' % n)
";

#[test]
fn input_without_output_is_not_lost() {
    for protocol in ["cbndvs", "cpvs", "cbndvs-log", "auto"] {
        let name = format!("much-{protocol}-{}", std::process::id());
        let state = std::env::temp_dir().join(&name);
        let dcrun = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
            command.env("DCRUN_STATE", &state);
            command
        };
        let mut run = dcrun()
            .args(["--fresh", "--name", "t", "--protocol", protocol])
            .args(["--", "/usr/bin/python3", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = run.stdin.take().unwrap();
        let chunk: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        let mut sent = 0;
        for nth in 0..160 {
            input.write_all(&chunk).unwrap();
            sent += chunk.len();
            if nth % 40 == 20 {
                std::thread::sleep(Duration::from_millis(20));
                let listed = dcrun().args(["ps", "--json"]).output().unwrap();
                let runs: Value = serde_json::from_slice(&listed.stdout).unwrap();
                let worker = runs[0]["worker_pid"].as_i64().expect("it runs");
                let worker = nix::unistd::Pid::from_raw(worker as i32);
                nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        }
        drop(input);
        let mut told = String::new();
        run.stdout
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        let mut said = String::new();
        run.stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(run.wait().unwrap().success(), "{protocol}: {said}");
        assert_eq!(told, format!("{sent}\n"), "{protocol}: {said}");
        let counted = dcrun().args(["stats", "t", "--json"]).output().unwrap();
        let counted: Value = serde_json::from_slice(&counted.stdout).unwrap();
        assert!(counted["recoveries"].as_u64() >= Some(4), "{protocol}");
        let _ = dcrun().args(["rm", "t"]).output();
        let _ = std::fs::remove_dir_all(&state);
    }
}
