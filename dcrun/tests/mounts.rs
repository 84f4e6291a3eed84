//! A file system that a program has written to can be unmounted as soon as nobody has anything open there.

mod place;

use std::process::{Command, Stdio};

use place::Place;

/// By the process that has written there, and by one that it starts.
const SCRIPT: &str = r#"
mkdir there
for by in itself another; do
  mount -t tmpfs none there
  echo a > there/x; mv there/x there/y; mkdir there/d; chmod 600 there/y; setfattr -n trusted.a -v b there/y
  cat there/y; rm there/y; echo b > there/z; rmdir there/d
  if [ $by = itself ]; then python3 -c '
import ctypes, os
open("there/q", "w").write("q"); os.rename("there/q", "there/r"); os.remove("there/r")
print(ctypes.CDLL(None).umount2(b"there", 0))'
  else umount there; echo $?
  fi
done
"#;

#[test]
fn nothing_of_the_runtime_keeps_a_file_system_busy() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let told = |hosted: bool| {
        let place = Place::new(if hosted { "mounts" } else { "mounts-native" });
        let mut command = match hosted {
            true => place.dcrun(&["--fresh", "--name", "t", "/bin/sh", "-c", SCRIPT]),
            false => Command::new("/bin/sh"),
        };
        if !hosted {
            command.args(["-c", SCRIPT]).current_dir(&place.0);
        }
        let out = command.stdin(Stdio::null()).output().unwrap();
        let _ = Command::new("umount")
            .args(["-l", "there"])
            .current_dir(&place.0)
            .output();
        (String::from_utf8(out.stdout).unwrap(), out.status.code())
    };
    let native = told(false);
    assert_eq!(native, ("a\n0\na\n0\n".to_owned(), Some(0)));
    for _ in 0..5 {
        assert_eq!(told(true), native);
    }
}
