//! The settings of `mailstore` alone: a server for a try, on this machine only.

use std::path::{Path, PathBuf};

use crate::directory::hash_password;
use crate::maildir::disk::Disk;
use crate::maildir::folders;
use crate::net::tls;
use crate::settings::Settings;

pub const ACCOUNT: &str = "test@localhost";
pub const PASSWORD: &str = "test";

/// Where its mail lies.
pub fn data_directory() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(data) = set("XDG_DATA_HOME") {
        return Ok(Path::new(&data).join("mailstore"));
    }
    match set("HOME") {
        Some(home) => Ok(Path::new(&home).join(".local/share/mailstore")),
        None => {
            Err("HOME is not set, so there is no place for the mail; give --settings FILE".into())
        }
    }
}

/// Makes the directory and a certificate, if they are not there, and the settings.
pub fn settings(data: &Path, disk: &Disk) -> Result<Settings, String> {
    folders::make_parents(disk, &data.join("x")).map_err(|failure| failure.to_string())?;
    let text = text(&hash_password(PASSWORD)?);
    let mut settings = Settings::parse(&text, data).map_err(|problems| problems.join("\n"))?;
    settings.data = data.to_path_buf();
    if let Some(files) = &settings.tls {
        tls::make_own(files, &["localhost"], disk)?;
    }
    Ok(settings)
}

fn text(password_hash: &str) -> String {
    format!(
        r#"hostname = "localhost"
data = "."

[listen]
smtp = ["127.0.0.1:2525"]
submission = ["127.0.0.1:2587"]
lmtp = ["127.0.0.1:2424"]
imap = ["127.0.0.1:2143"]
imaps = ["127.0.0.1:2993"]

[tls]
certificate = "certificate.pem"
key = "key.pem"

[[domain]]
name = "localhost"

[[account]]
address = "{ACCOUNT}"
password = "{password_hash}"
"#
    )
}
