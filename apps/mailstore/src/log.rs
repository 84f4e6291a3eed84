//! The log: one line on standard error for each thing an operator should know.

use std::io::Write;
use std::time::SystemTime;

pub fn line(text: std::fmt::Arguments) {
    let text: String = text
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let line = format!("{} {text}\n", crate::clock::iso(SystemTime::now()));
    // A log that cannot be written must not stop mail.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[macro_export]
macro_rules! log {
    ($($part:tt)*) => { $crate::log::line(format_args!($($part)*)) };
}
