//! `undo-mail SETTINGS` serves; `undo-mail --example` prints a file of settings;
//! `undo-mail --prepare SETTINGS` only makes (or mounts) the folder of the live state, so that the
//! mail server can be started on it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use undo_mail::settings::{EXAMPLE, Settings};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["--example"] => {
            print!("{EXAMPLE}");
            Ok(())
        }
        ["--prepare", path] => {
            Settings::read(Path::new(path))
                .and_then(|s| undo_mail::proxy::prepare(&s))
                .map(|storage| {
                    println!("{}", storage.live().display());
                    // The mount must outlive this process.
                    std::mem::forget(storage);
                })
        }
        [path] if !path.starts_with('-') => undo_mail::proxy::run(Path::new(path)),
        _ => {
            eprintln!("usage: undo-mail SETTINGS | --prepare SETTINGS | --example");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("undo-mail: {error}");
            ExitCode::FAILURE
        }
    }
}
