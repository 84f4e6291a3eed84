//! `run.json`: what a run was started with, so that it can go on without being
//! told again.
//!
//! Arguments and environment are bytes, JSON is text: what is no UTF-8 is
//! written as `{"hex": "..."}`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::chosen::Chosen;
use crate::cli::{self, Rio};
use crate::standard::{self, Standard};

/// Signals that may suspend a run instead of being its program's.
pub const SUSPENDING: u64 = 1 << (libc::SIGTERM - 1) | 1 << (libc::SIGHUP - 1);

/// Raised when the meaning of a field changes.
const FORMAT: u64 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    /// As the user wrote it.
    pub command: Vec<OsString>,
    /// The ELF file, what execve would have been given, and the arguments.
    pub program: PathBuf,
    pub executed: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<OsString>,
    pub directory: PathBuf,
    pub protocol: Chosen,
    pub rio: Rio,
    pub image: PathBuf,
    /// The image's own number; 0 is not known.
    pub image_id: u64,
    pub interval_ms: u64,
    /// Signals from outside that suspend the run: bit N is signal N + 1.
    pub suspend_on: u64,
    /// Its standard descriptors, as whoever resumed it by hand last gave them.
    pub standard: [Standard; 3],
    pub created_unix_s: u64,
}

impl Record {
    pub fn to_json(&self) -> Value {
        json!({
            "format": FORMAT,
            "name": self.name,
            "command": list(&self.command),
            "program": text(self.program.as_os_str()),
            "executed": text(self.executed.as_os_str()),
            "arguments": list(&self.arguments),
            "environment": list(&self.environment),
            "directory": text(self.directory.as_os_str()),
            "protocol": self.protocol.name(),
            "rio": self.rio.to_string(),
            "image": text(self.image.as_os_str()),
            "image_id": self.image_id,
            "interval_ms": self.interval_ms,
            "suspend_on": self.suspend_on,
            "standard": standard::to_json(&self.standard),
            "created_unix_s": self.created_unix_s,
        })
    }

    /// `Err` names the field that is missing or makes no sense.
    pub fn from_json(value: &Value) -> Result<Record, &'static str> {
        if value["format"].as_u64() != Some(FORMAT) {
            return Err("format");
        }
        let executed = bytes(&value["executed"]).map(PathBuf::from);
        let path = |key: &'static str| {
            let path = bytes(&value[key]).map(PathBuf::from);
            path.filter(|path| path.is_absolute()).ok_or(key)
        };
        let words = |key: &'static str| {
            let list = value[key].as_array().ok_or(key)?;
            list.iter()
                .map(|word| bytes(word).ok_or(key))
                .collect::<Result<Vec<_>, _>>()
        };
        let command_of = |key| words(key).and_then(|w| if w.is_empty() { Err(key) } else { Ok(w) });
        let string = |key: &'static str| value[key].as_str().ok_or(key);
        Ok(Record {
            name: cli::parse_name(string("name")?).map_err(|_| "name")?,
            command: command_of("command")?,
            program: path("program")?,
            executed: executed.ok_or("executed")?,
            arguments: command_of("arguments")?,
            environment: words("environment")?,
            directory: path("directory")?,
            protocol: Chosen::from_name(string("protocol")?).ok_or("protocol")?,
            rio: cli::parse_rio(string("rio")?).map_err(|_| "rio")?,
            image: path("image")?,
            image_id: value["image_id"].as_u64().unwrap_or(0),
            interval_ms: value["interval_ms"].as_u64().ok_or("interval_ms")?,
            suspend_on: match &value["suspend_on"] {
                Value::Null => 0,
                mask => mask
                    .as_u64()
                    .filter(|mask| mask & !SUSPENDING == 0)
                    .ok_or("suspend_on")?,
            },
            standard: standard::from_json(&value["standard"]).ok_or("standard")?,
            created_unix_s: value["created_unix_s"].as_u64().ok_or("created_unix_s")?,
        })
    }

    /// The command as one line, for people.
    pub fn command_line(&self) -> String {
        let words: Vec<String> = self
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }
}

fn list(words: &[OsString]) -> Value {
    words.iter().map(|word| text(word)).collect()
}

pub fn text(word: &OsStr) -> Value {
    match word.to_str() {
        Some(text) => Value::from(text),
        None => {
            let hex: String = word
                .as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            json!({ "hex": hex })
        }
    }
}

/// What execve would take: bytes without a NUL.
pub fn bytes(value: &Value) -> Option<OsString> {
    let word = match value.as_str() {
        Some(text) => OsString::from(text),
        None => from_hex(value["hex"].as_str()?)?,
    };
    (!word.as_bytes().contains(&0)).then_some(word)
}

fn from_hex(hex: &str) -> Option<OsString> {
    if hex.len() % 2 == 1 {
        return None;
    }
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let bytes = digits?
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        let odd = OsString::from_vec(vec![b'a', 0xff, b'"', b'\n']);
        let record = Record {
            name: "x".to_owned(),
            command: vec!["app".into(), odd.clone()],
            program: "/bin/app".into(),
            executed: "./app".into(),
            arguments: vec!["app".into(), odd.clone()],
            environment: vec!["A=".into(), odd],
            directory: "/".into(),
            protocol: Chosen::Auto,
            rio: cli::parse_rio("disk:/tmp/x").unwrap(),
            image: "/tmp/x".into(),
            image_id: u64::MAX,
            interval_ms: 10,
            suspend_on: 1 << (libc::SIGTERM - 1),
            standard: [Standard::Closed, Standard::Terminal, Standard::Other],
            created_unix_s: 1,
        };
        let text = record.to_json().to_string();
        assert_eq!(
            Record::from_json(&serde_json::from_str(&text).unwrap()),
            Ok(record)
        );
    }

    #[test]
    fn names_the_damaged_field() {
        assert_eq!(Record::from_json(&json!({})), Err("format"));
        assert_eq!(Record::from_json(&json!({"format": 1})), Err("name"));
    }
}
