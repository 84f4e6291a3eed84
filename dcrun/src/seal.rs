//! JSON with a sum over itself, so that damage is found before it is believed.
//!
//! The sum (FNV-1a, as in images) is over the object's text without the member
//! `sum`, with keys in order and without spaces: so it does not change when a
//! reader lays the text out in another way. It finds damage, not malice: who may
//! write the file may write the sum.

use dc_image::header::checksum;
use serde_json::Value;

const SUM: &str = "sum";

/// The text of an object, with its sum.
pub fn close(value: &Value) -> String {
    let mut sealed = value.clone();
    sealed[SUM] = sum(value).into();
    format!("{sealed:#}\n")
}

/// The object, without its sum; `Err` says what is wrong with it.
pub fn open(text: &str) -> Result<Value, String> {
    let mut value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let object = value.as_object_mut().ok_or("it is no JSON object")?;
    let found = object
        .remove(SUM)
        .ok_or("it has no sum, as those of other versions of dcrun")?;
    if found.as_str() != Some(&sum(&value)) {
        return Err("its sum is wrong".to_owned());
    }
    Ok(value)
}

fn sum(value: &Value) -> String {
    format!("{:016x}", checksum(value.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_it_wrote_however_it_is_laid_out() {
        let value = json!({"b": [1, "x\u{1b}"], "a": {"y": 5.445504504504505, "x": null}});
        let text = close(&value);
        assert_eq!(open(&text), Ok(value.clone()));
        let other: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(open(&other.to_string()), Ok(value));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let text = close(&json!({"name": "x", "list": [1, 2.5, true], "n": 70000}));
        let whole = open(&text).unwrap();
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(other) = String::from_utf8(bytes) else {
                    continue;
                };
                // A space may become another one: the value is the same.
                assert!(
                    open(&other).is_err() || open(&other) == Ok(whole.clone()),
                    "byte {at}, bit {bit}: {other}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_sealed_object_is_refused() {
        for text in ["", "[]", "7", "{}", "{\"sum\": 7}", "{\"sum\": \"00\"}"] {
            assert!(open(text).is_err(), "{text}");
        }
        assert!(open(&"[".repeat(100_000)).is_err());
    }
}
