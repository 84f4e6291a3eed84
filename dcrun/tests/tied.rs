//! A socket that was bound or connected when its program died is so for the call that is made again, and a second such call
//! is refused as ever. The deaths come between the call and its commit, with nothing uncommitted before it.

mod place;

use std::process::Stdio;

use place::Place;

const TIES: &str = "
import socket
def tells(what, call):
    print('now', what, flush=True)
    try: call()
    except OSError as error: print(what, error.errno, flush=True)
    else: print(what, 'done', flush=True)
for family, name in (socket.AF_UNIX, 'here'), (socket.AF_INET, ('127.0.0.1', 0)):
    server, client = socket.socket(family), socket.socket(family)
    tells('bind', lambda: server.bind(name))
    tells('bind again', lambda: server.bind('there' if family == socket.AF_UNIX else name))
    server.listen(1)
    tells('connect', lambda: client.connect(server.getsockname()))
    tells('connect again', lambda: client.connect(server.getsockname()))
    server.close(); client.close()
";

const TOLD: [(&str, &str); 8] = [
    ("bind", "done"),
    ("bind again", "22"),
    ("connect", "done"),
    ("connect again", "106"),
    ("bind", "done"),
    ("bind again", "22"),
    ("connect", "done"),
    ("connect again", "106"),
];

fn survives_ties(protocol: &str) {
    let expected: String = TOLD
        .iter()
        .map(|(what, how)| format!("now {what}\n{what} {how}\n"))
        .collect();
    let mut recoveries = 0;
    // 16 lines and four calls that tie.
    for nth in 1..=20 {
        let place = Place::new(&format!("tied-{protocol}-{nth}"));
        let output = place
            .python(&["--protocol", protocol], TIES)
            .env("DCRUN_FAULT", format!("after-visible:{nth}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(told, expected, "{protocol}, {nth}: {output:?}");
        recoveries += place.stats()["recoveries"].as_u64().unwrap();
    }
    assert_eq!(recoveries, 20, "{protocol}");
}

#[test]
fn ties_survive_under_protocols_that_commit() {
    for protocol in ["cpvs", "cand", "cbndvs"] {
        survives_ties(protocol);
    }
}

#[test]
fn ties_survive_under_protocols_that_log_and_auto() {
    for protocol in ["cand-log", "cbndvs-log", "auto"] {
        survives_ties(protocol);
    }
}
