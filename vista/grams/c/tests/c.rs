//! The C interface: the lock manager of figure 4.4, killed on both sides, and every misuse.

use std::ffi::{CStr, CString, c_int};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};
use std::time::Duration;

use vista_c::*;
use vistagrams::RequestId;
use vistagrams_c::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let path = base.join(format!("vistagrams-c-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Builds the example against the static library that lies beside this test.
fn compile(place: &Place) -> PathBuf {
    let deps = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = place.0.join("lock_manager");
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(here.join("../../include"))
        .arg(here.join("tests/lock_manager.c"))
        .arg(deps.join("libvistagrams_c.a"))
        .args(["-lm", "-o"])
        .arg(&program)
        .status();
    assert!(compiled.expect("a C compiler").success());
    program
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "it stopped by itself");
}

#[test]
fn the_lock_manager_of_the_thesis_survives_kills_of_both_sides() {
    let place = Place::new("locks");
    let program = compile(&place);
    let port = 19_000 + std::process::id() % 1000;
    let address = format!("127.0.0.1:{port}");
    let start = |words: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg(words[0])
            .arg(place.0.join(words[0]))
            .args(&words[1..]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut server = start(&["server", &address]);
    for round in 0..40 {
        let client = start(&["client", &address, "1000000000"]);
        std::thread::sleep(Duration::from_micros(1500 + 700 * (round % 9)));
        if round % 3 == 0 {
            kill(server);
            server = start(&["server", &address]);
            std::thread::sleep(Duration::from_micros(900 * (round % 5)));
        }
        kill(client);
    }
    // So many more that it ends.
    let count = |target: &str| {
        let output = start(&["client", &address, target])
            .wait_with_output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text
            .split_whitespace()
            .map(|word| word.parse::<u64>().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    };
    let (rounds, _) = count("1");
    let (rounds, granted) = count(&(rounds + 5).to_string());
    assert!(rounds > 5, "{rounds}");
    assert_eq!(rounds, granted, "rounds and grants differ");
    kill(server);
}

fn message(v: *mut Vista) -> String {
    // SAFETY: a vista; the string is copied at once.
    unsafe { CStr::from_ptr(vista_error(v)) }
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn each_misuse_has_a_status_and_a_message() {
    let place = Place::new("misuse");
    let path = |name: &str| CString::new(place.0.join(name).to_str().unwrap()).unwrap();
    let mut id = RequestId::NONE;
    let (mut len, mut which) = (0_usize, 0_usize);
    let mut buffer = [0_u8; 64];
    let at = buffer.as_mut_ptr().cast();
    let data = b"hello".as_ptr().cast();
    // SAFETY: both images are open until they are closed; all pointers are to this frame.
    unsafe {
        let (c, s) = (
            vista_init(path("c").as_ptr(), 0, 1 << 20),
            vista_init(path("s").as_ptr(), 0, 1 << 20),
        );
        assert_eq!(vista_send_request(c, 1, data, 5, &mut id), 8);
        assert!(
            message(c).contains("vista_grams_open first"),
            "{}",
            message(c)
        );
        assert_eq!(vista_grams_open(c, c"nowhere".as_ptr(), null()), 10);
        assert!(message(c).contains("write 10.0.0.1:4000"), "{}", message(c));
        let mut options = GramsOptions {
            resend_port: 0,
            key: b"sixteen bytes ..".as_ptr(),
            datagram: 10,
            window: 0,
            segment_len: 1 << 20,
        };
        assert_eq!(vista_grams_open(c, c"127.0.0.1:0".as_ptr(), &options), 10);
        assert!(message(c).contains("datagram is 10"), "{}", message(c));
        options.datagram = 0;
        for v in [c, s] {
            assert_eq!(
                vista_grams_open(v, c"127.0.0.1:0".as_ptr(), &options),
                0,
                "{}",
                message(v)
            );
            assert_eq!(vista_grams_open(v, c"127.0.0.1:0".as_ptr(), &options), 8);
        }
        let mut address = [0; 64];
        assert_eq!(vista_grams_address(s, address.as_mut_ptr(), 3), 9);
        assert_eq!(vista_grams_address(s, address.as_mut_ptr(), 64), 0);

        assert_eq!(vista_send_request(c, 1, data, 5, &mut id), 2);
        assert_eq!(vista_begin_transaction(c), 0);
        assert_eq!(vista_send_request(c, 99, data, 5, &mut id), 3);
        let peer = vista_peer(c, address.as_ptr());
        assert_ne!(peer, 0, "{}", message(c));
        assert_eq!(vista_peer(c, c"x".as_ptr()), 0);
        assert_eq!(
            vista_send_request(c, peer, data, 5, &mut id),
            0,
            "{}",
            message(c)
        );
        // The rule of the model: not in the transaction that sends it.
        assert_eq!(vista_receive_response(c, &id, at, 64, &mut len, -1), 8);
        assert!(message(c).contains("end it"), "{}", message(c));
        assert_eq!(vista_end_transaction(c), 0);

        assert_eq!(vista_begin_transaction(s), 0);
        assert_eq!(vista_send_response(s, &id, data, 5), 3);
        assert_eq!(
            vista_receive_request(s, at, 2, &mut len, &mut id, 20_000),
            9
        );
        assert_eq!(len, 5);
        let mut received = RequestId::NONE;
        let got: c_int = vista_receive_request(s, at, 64, &mut len, &mut received, 20_000);
        assert_eq!((got, len, received), (0, 5, id), "{}", message(s));
        assert_eq!(vista_end_transaction(s), 0);
        let mut unanswered = [RequestId::NONE; 4];
        assert_eq!(vista_unanswered(s, unanswered.as_mut_ptr(), 4), 1);
        assert_eq!(vista_begin_transaction(s), 0);
        assert_eq!(
            vista_send_response(s, &unanswered[0], data, 5),
            0,
            "{}",
            message(s)
        );
        assert_eq!(
            vista_send_response(s, &unanswered[0], data, 5),
            3,
            "answered twice"
        );
        assert_eq!(vista_end_transaction(s), 0);

        assert_eq!(vista_select(c, &id, 1, 20_000, &mut which), 0);
        assert_eq!(which, 0);
        assert_eq!(vista_begin_transaction(c), 0);
        assert_eq!(vista_receive_response(c, &id, at, 1, &mut len, -1), 9);
        assert_eq!(vista_receive_response(c, &id, at, 64, &mut len, -1), 0);
        assert_eq!(&buffer[..len], b"hello");
        assert_eq!(vista_abort_transaction(c), 0);
        assert_eq!(vista_begin_transaction(c), 0);
        assert_eq!(
            vista_receive_response(c, &id, at, 64, &mut len, 0),
            0,
            "it came back"
        );
        assert_eq!(vista_end_transaction(c), 0);
        assert_eq!(vista_begin_transaction(c), 0);
        assert_eq!(vista_receive_response(c, &id, at, 64, &mut len, 0), 3);
        assert_eq!(vista_abandon(c, &id), 3);
        assert_eq!(vista_abort_transaction(c), 0);
        assert_eq!(vista_select(c, null(), 0, 10, &mut which), 7);
        vista_close(c);
        vista_close(s);
        vista_close(null_mut());
    }
}
