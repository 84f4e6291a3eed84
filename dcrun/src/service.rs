//! `dcrun service`: the unit by which systemd has this user's runs suspended at a shutdown, and
//! resumed when the machine, or the user, is there again.
//!
//! It is a unit of the user's own manager, so it needs no rights. Nothing of anybody else is
//! overwritten or removed: a unit of ours begins with a line that says so.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::ServiceAction;
use crate::message::{Doing, Failure, Outcome, say};

const NAME: &str = "dcrun.service";
const MARK: &str = "# Made by `dcrun service install`; `dcrun service uninstall` removes it.\n";

/// `dcrun service install|uninstall|show`.
pub fn act(action: ServiceAction) -> Outcome<u8> {
    match action {
        ServiceAction::Install { force } => install(force),
        ServiceAction::Uninstall => uninstall(),
        ServiceAction::Show => {
            let _ = io::stdout().write_all(unit()?.as_bytes());
            Ok(0)
        }
    }
}

fn unit() -> Outcome<String> {
    let own = std::env::current_exe().doing(|| "dcrun: find its own executable".to_owned())?;
    let state = std::env::var_os("DCRUN_STATE").filter(|state| !state.is_empty());
    let state = match state {
        Some(state) => {
            let state = std::path::absolute(&state)
                .doing(|| "DCRUN_STATE: make its path absolute".to_owned())?;
            Some(quoted(
                &[b"DCRUN_STATE=", state.as_os_str().as_bytes()].concat(),
                false,
            )?)
        }
        None => None,
    };
    let program = quoted(own.as_os_str().as_bytes(), true)?;
    Ok(text(&program, state.as_deref()))
}

/// A run that cannot be resumed is no reason to call the unit failed: it would not be asked to
/// suspend the others then.
fn text(program: &str, state: Option<&str>) -> String {
    let state = state.map_or(String::new(), |state| format!("Environment={state}\n"));
    format!(
        "{MARK}[Unit]\n\
         Description=Runs of dcrun: suspended at a shutdown, resumed at the next start\n\
         Documentation=man:systemd.service(5)\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         {state}\
         ExecStart=-{program} resume --all\n\
         ExecStop={program} suspend --all\n\
         TimeoutStopSec=90\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

/// A word as systemd.syntax(7) and systemd.service(5) want it. In the line of a command a dollar
/// stands for a variable; elsewhere it is itself.
fn quoted(word: &[u8], in_command: bool) -> Outcome<String> {
    let shown = String::from_utf8_lossy(word).into_owned();
    let Ok(word) = std::str::from_utf8(word) else {
        return Err(Failure::own(format!(
            "{shown}: it is no UTF-8, which systemd needs; put it under another name"
        )));
    };
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text.push_str("%%"),
            '$' if in_command => text.push_str("$$"),
            _ if c.is_control() => {
                return Err(Failure::own(format!(
                    "{shown}: it holds what no line of a unit may hold; put it under another name"
                )));
            }
            _ => text.push(c),
        }
    }
    text.push('"');
    Ok(text)
}

/// Where this user's units lie.
fn directory() -> Outcome<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| !value.is_empty());
    let config = set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))
        .ok_or_else(|| {
            Failure::own("units of systemd: neither XDG_CONFIG_HOME nor HOME is set; set one")
        })?;
    let config =
        std::path::absolute(&config).doing(|| format!("{}: make it absolute", config.display()))?;
    Ok(config.join("systemd/user"))
}

fn install(force: bool) -> Outcome<u8> {
    let unit = unit()?;
    let directory = directory()?;
    let path = directory.join(NAME);
    let shown = path.display();
    match there(&path)? {
        Some(old) if old == unit => {
            say(&format!("{shown}: it is there already, and says the same"));
            return Ok(0);
        }
        Some(old) if !force => {
            let whose = match old.starts_with(MARK) {
                true => "one of another dcrun or state directory",
                false => "one that dcrun has not made",
            };
            return Err(Failure::own(format!(
                "{shown}: there is {whose}; look at it, then replace it with \
                 `dcrun service install --force`"
            )));
        }
        _ => {}
    }
    fs::create_dir_all(&directory).doing(|| format!("{}: make it", directory.display()))?;
    write_whole(&path, &unit).doing(|| format!("{shown}: write it"))?;
    say(&format!(
        "{shown}: written; `systemctl --user daemon-reload` and `systemctl --user enable --now \
         {NAME}` begin with it, `loginctl enable-linger` has it resume runs before you log in"
    ));
    Ok(0)
}

fn uninstall() -> Outcome<u8> {
    let path = directory()?.join(NAME);
    let shown = path.display();
    match there(&path)? {
        None => Err(Failure::own(format!("{shown}: there is none"))),
        Some(old) if !old.starts_with(MARK) => Err(Failure::own(format!(
            "{shown}: dcrun has not made it, so it is left alone; remove it yourself"
        ))),
        Some(_) => {
            fs::remove_file(&path).doing(|| format!("{shown}: remove it"))?;
            say(&format!(
                "{shown}: removed; `systemctl --user disable {NAME}` takes it out of the start, \
                 if it was enabled"
            ));
            Ok(0)
        }
    }
}

/// What stands there; something that is no file is an error.
fn there(path: &Path) -> Outcome<Option<String>> {
    let doing = || format!("{}: read it", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(doing),
        Ok(about) if !about.is_file() => Err(Failure::own(format!(
            "{}: it is no file; look what it is, and remove it yourself",
            path.display()
        ))),
        Ok(_) => {
            let bytes = fs::read(path).doing(doing)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
    }
}

/// Under another name first: what stands there is always whole.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut name = OsStr::new(".").to_owned();
    name.push(NAME);
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)?;
    file.write_all(text.as_bytes())
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_themselves_to_systemd() {
        let command = |word: &str| quoted(word.as_bytes(), true).unwrap();
        assert_eq!(command("/usr/bin/dcrun"), "\"/usr/bin/dcrun\"");
        assert_eq!(command("/a b/$x%h\"\\"), "\"/a b/$$x%%h\\\"\\\\\"");
        assert_eq!(quoted(b"A=$x", false).unwrap(), "\"A=$x\"");
        assert!(quoted(b"/a\nExecStart=b", true).is_err());
        assert!(quoted(b"/\xff", true).is_err());
    }

    #[test]
    fn the_unit_begins_with_whose_it_is() {
        let unit = text("\"/d\"", Some("\"DCRUN_STATE=/s\""));
        assert!(unit.starts_with(MARK));
        assert!(unit.contains("\nExecStart=-\"/d\" resume --all\n"));
        assert!(unit.contains("\nEnvironment=\"DCRUN_STATE=/s\"\n"));
    }
}
