//! `dcrun doctor PROGRAM`: what a program's files tell before it runs.

mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use place::Place;
use serde_json::Value;

fn compile(place: &Place, name: &str, source: &str, how: &[&str]) -> PathBuf {
    let text = place.0.join(format!("{name}.c"));
    fs::write(&text, source).unwrap();
    let made = place.0.join(name);
    let compiled = Command::new("gcc")
        .args(["-w", "-o"])
        .args([&made, &text])
        .args(how)
        .current_dir(&place.0)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    made
}

fn doctor(place: &Place, words: &[&str]) -> Output {
    let mut command = place.dcrun(&["doctor"]);
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

fn looked_at(place: &Place, words: &[&str]) -> (i32, Value) {
    let output = doctor(place, &[&["--json"], words].concat());
    let told = serde_json::from_slice(&output.stdout);
    let told = told.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), told)
}

/// Kinds and calls that were found.
fn found(told: &Value) -> Vec<String> {
    let findings = told["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    findings
        .map(|f| format!("{} {}", text(f, "kind"), text(f, "call")))
        .collect()
}

#[test]
fn what_a_program_takes_from_its_libraries() {
    let place = Place::new("foresight");
    let plain = compile(
        &place,
        "plain",
        "int main() { return puts(\"x\") < 0; }",
        &[],
    );
    let (status, told) = looked_at(&place, &[plain.to_str().unwrap()]);
    assert_eq!((status, found(&told).len()), (0, 0), "{told}");
    let said = String::from_utf8(doctor(&place, &["./plain", "--json", "-x"]).stdout).unwrap();
    assert!(said.contains("Nothing was found"), "{said}");

    let traces = "int main() { ptrace(0, 0, 0, 0); unshare(0); return mq_open(\"/x\", 0); }";
    compile(&place, "traces", traces, &[]);
    let (status, told) = looked_at(&place, &["./traces"]);
    let expected = [
        "refused ptrace",
        "stops a recovery unshare",
        "not kept mq_open",
    ];
    assert_eq!(
        (status, found(&told)),
        (1, expected.map(str::to_owned).to_vec()),
        "{told}"
    );
    assert_eq!(told["findings"][0]["by"][0]["function"], "ptrace");
    let said = doctor(&place, &["./traces"]);
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("refused           ptrace: (EPERM) "),
        "{said}"
    );
}

#[test]
fn what_libraries_take_and_which_are_not_there() {
    let place = Place::new("foresight-libraries");
    compile(
        &place,
        "libinner.so",
        "int inner() { return fanotify_init(0, 0); }",
        &["-shared", "-fPIC"],
    );
    let beside = ["-L.", "-linner", "-Wl,-rpath,$ORIGIN"];
    compile(
        &place,
        "libouter.so",
        "int outer() { return inner(); }",
        &[&["-shared", "-fPIC"], &beside[..]].concat(),
    );
    compile(
        &place,
        "user",
        "int main() { return outer(); }",
        &["-L.", "-louter", "-Wl,-rpath,$ORIGIN", "-Wl,-rpath-link,."],
    );
    let (status, told) = looked_at(&place, &["./user"]);
    assert_eq!(
        (status, found(&told)),
        (1, vec!["not kept fanotify_init".to_owned()]),
        "{told}"
    );
    let by = told["findings"][0]["by"][0]["file"].as_str().unwrap();
    assert!(by.ends_with("libinner.so"), "{told}");
    fs::remove_file(place.0.join("libinner.so")).unwrap();
    let (status, told) = looked_at(&place, &["./user"]);
    assert_eq!(
        (status, found(&told)),
        (1, vec!["cannot run ".to_owned()]),
        "{told}"
    );
    assert!(
        told["findings"][0]["says"]
            .as_str()
            .unwrap()
            .contains("libinner.so"),
        "{told}"
    );
    // Something else of that name is no library.
    fs::write(place.0.join("libinner.so"), "text").unwrap();
    assert_eq!(looked_at(&place, &["./user"]).0, 1);
}

#[test]
fn scripts_static_programs_and_what_cannot_run() {
    let place = Place::new("foresight-kinds");
    let script = place.0.join("script");
    fs::write(&script, "#!/bin/sh -e\necho x\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let (status, told) = looked_at(&place, &["./script", "word"]);
    assert_eq!(status, 0, "{told}");
    assert!(
        told["notes"][0].as_str().unwrap().contains("script"),
        "{told}"
    );

    let traces = "int main() { return ptrace(0, 0, 0, 0); }";
    compile(&place, "static", traces, &["-static"]);
    let (status, told) = looked_at(&place, &["./static"]);
    assert!(
        status == 1 && found(&told).contains(&"refused ptrace".to_owned()),
        "{told}"
    );
    compile(&place, "bare", traces, &["-static", "-s"]);
    let (status, told) = looked_at(&place, &["./bare"]);
    assert_eq!(status, 0, "{told}");
    assert!(
        told["notes"][0].as_str().unwrap().contains("without names"),
        "{told}"
    );

    let plain = compile(&place, "plain", "int main() { return 0; }", &[]);
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o4755)).unwrap();
    let (status, told) = looked_at(&place, &["./plain"]);
    assert_eq!(
        (status, found(&told)),
        (1, vec!["cannot run ".to_owned()]),
        "{told}"
    );
    let mut bytes = fs::read(&plain).unwrap();
    bytes[18] = 183; // AArch64
    fs::write(place.0.join("other"), &bytes).unwrap();
    fs::set_permissions(place.0.join("other"), PermissionsExt::from_mode(0o755)).unwrap();
    let (status, told) = looked_at(&place, &["./other"]);
    assert!(
        status == 1 && told.to_string().contains("AArch64"),
        "{told}"
    );
    let loader = ["-Wl,--dynamic-linker=/nowhere/ld.so"];
    compile(&place, "lost", "int main() { return 0; }", &loader);
    let (status, told) = looked_at(&place, &["./lost"]);
    assert!(
        status == 1 && told.to_string().contains("/nowhere/ld.so"),
        "{told}"
    );
    assert_eq!(doctor(&place, &["./absent"]).status.code(), Some(127));
}
