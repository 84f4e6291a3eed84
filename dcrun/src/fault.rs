//! What tests ask for in the environment: named faults (DCRUN_FAULT=name:count, or all-name:count
//! for dcrun itself too),
//! planted bugs (DCRUN_PLANT=name), another bound of the log
//! (DCRUN_LOG_LIMIT=bytes), and another time after which memory that is quiet
//! is mapped from the image (DCRUN_FOLD_MS=ms, 0 is never).

use dc_image::boot::{FOLD_MS, LOG_LIMIT, fault, plant};

use crate::message::{Failure, Outcome};

pub const FAULT_VARIABLE: &str = "DCRUN_FAULT";
pub const PLANT_VARIABLE: &str = "DCRUN_PLANT";
pub const LOG_LIMIT_VARIABLE: &str = "DCRUN_LOG_LIMIT";
pub const FOLD_VARIABLE: &str = "DCRUN_FOLD_MS";
/// What the program does not get to see.
pub const VARIABLES: [&str; 4] = [
    FAULT_VARIABLE,
    PLANT_VARIABLE,
    LOG_LIMIT_VARIABLE,
    FOLD_VARIABLE,
];

/// A crash point and its count; each run crashes there once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub point: u32,
    pub count: u64,
}

pub const NO_FAULT: Fault = Fault {
    point: fault::NONE,
    count: 0,
};

pub fn parse_fault(text: Option<&str>) -> Outcome<Fault> {
    let Some(text) = text else {
        return Ok(NO_FAULT);
    };
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let (name, all) = match name.strip_prefix("all-") {
        Some(name) => (name, fault::ALL),
        None => (name, 0),
    };
    let point = number_of(FAULT_VARIABLE, name, fault::NAMES)? | all;
    match count.parse() {
        Ok(count) if count > 0 => Ok(Fault { point, count }),
        _ => Err(Failure::own(format!(
            "{FAULT_VARIABLE}={text}: `{count}` is no count from 1 on; write name:count"
        ))),
    }
}

pub fn parse_plant(text: Option<&str>) -> Outcome<u32> {
    text.map_or(Ok(plant::NONE), |name| {
        number_of(PLANT_VARIABLE, name, plant::NAMES)
    })
}

/// Bytes that the log of an interval may have.
pub fn parse_log_limit(text: Option<&str>) -> Outcome<u64> {
    parse_figure(LOG_LIMIT_VARIABLE, text, LOG_LIMIT, "bytes")
}

/// How long memory must have been quiet to be mapped from the image.
pub fn parse_fold(text: Option<&str>) -> Outcome<u64> {
    parse_figure(FOLD_VARIABLE, text, FOLD_MS, "ms")
}

fn parse_figure(variable: &str, text: Option<&str>, usual: u64, unit: &str) -> Outcome<u64> {
    text.map_or(Ok(usual), |text| {
        text.parse()
            .map_err(|_| Failure::own(format!("{variable}={text}: it is no number of {unit}")))
    })
}

fn number_of(variable: &str, name: &str, table: &[(&str, u32)]) -> Outcome<u32> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(|| {
            let known: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
            Failure::own(format!(
                "{variable}: there is no `{name}`; there is {}",
                known.join(", ")
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_counts() {
        assert_eq!(parse_fault(None), Ok(NO_FAULT));
        let after = |count| {
            Ok(Fault {
                point: fault::AFTER_COMMIT,
                count,
            })
        };
        assert_eq!(parse_fault(Some("after-commit:7")), after(7));
        assert_eq!(parse_fault(Some("after-commit")), after(1));
        assert_eq!(parse_plant(Some("lose-read")), Ok(plant::LOSE_READ));
        assert_eq!(parse_log_limit(None), Ok(LOG_LIMIT));
        assert_eq!(parse_log_limit(Some("4096")), Ok(4096));
        assert!(parse_log_limit(Some("4k")).is_err());
        assert_eq!(parse_fold(None), Ok(FOLD_MS));
        assert_eq!(parse_fold(Some("0")), Ok(0));
        assert!(parse_fold(Some("soon")).is_err());
    }

    #[test]
    fn names_what_there_is() {
        assert!(
            parse_fault(Some("never:1"))
                .unwrap_err()
                .to_string()
                .contains("after-read")
        );
        assert!(parse_fault(Some("after-read:0")).is_err());
        assert!(
            parse_plant(Some("x"))
                .unwrap_err()
                .to_string()
                .contains("skip-page")
        );
    }
}
