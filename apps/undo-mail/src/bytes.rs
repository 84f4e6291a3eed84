//! Bytes of a message inside of a verb: as they are in the timeline, as text for operators.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes of a message. In JSON they are a string if they are UTF-8, else `base64:` and base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

const BASE64: &str = "base64:";

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        if !serializer.is_human_readable() {
            return serde_bytes::serialize(&self.0, serializer);
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with(BASE64) => serializer.serialize_str(text),
            _ => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(&self.0);
                serializer.serialize_str(&format!("{BASE64}{encoded}"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine;
        if !deserializer.is_human_readable() {
            return serde_bytes::deserialize(deserializer).map(Bytes);
        }
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix(BASE64) {
            Some(encoded) => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map(Bytes)
                .map_err(serde::de::Error::custom),
            None => Ok(Bytes(text.into_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_get_back_what_they_have_seen() {
        for bytes in [
            b"plain\r\n".to_vec(),
            vec![0xff, 0, 1],
            b"base64:really".to_vec(),
        ] {
            let json = serde_json::to_string(&Bytes(bytes.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap().0, bytes);
        }
    }
}
