//! Small files that are replaced as a whole: after a death there is the old one or the new one.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Error, Result};

/// Reads a value; `None` if the file is not there.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
            Error::new(file.display(), "read", cause).advise("restore this file from a backup")
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new(file.display(), "read", e)),
    }
}

/// Writes a value; it is on stable storage when this returns.
pub fn write<T: Serialize>(file: &Path, value: &T) -> Result<()> {
    let fresh = file.with_extension("new");
    let bytes = serde_json::to_vec_pretty(value).context(file.display(), "encode")?;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut f| f.write_all(&bytes).and_then(|()| f.sync_all()))
        .context(fresh.display(), "write")?;
    std::fs::rename(&fresh, file).context(file.display(), "replace")?;
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)
        .and_then(|f| f.sync_all())
        .context(folder.display(), "sync")
}
