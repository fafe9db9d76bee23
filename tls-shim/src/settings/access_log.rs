//! This knows what the settings say of the access log.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// Where a line for each request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// There are none.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OffOrPlace)
    }
}

struct OffOrPlace;

impl Visitor<'_> for OffOrPlace {
    type Value = AccessLog;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off, stdout, or the path of a file with a / in it")
    }

    /// `off` is one in YAML.
    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
        if on { Err(E::invalid_value(Unexpected::Bool(on), &self)) } else { Ok(AccessLog::Off) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            "off" => Ok(AccessLog::Off),
            "stdout" => Ok(AccessLog::Stdout),
            // So that a misspelled word, or one from another program's settings, becomes no file.
            path if path.contains('/') => Ok(AccessLog::File(path.into())),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_or_somewhere() {
        for (text, expected) in [
            ("off", AccessLog::Off),
            ("'off'", AccessLog::Off),
            ("stdout", AccessLog::Stdout),
            ("/var/log/a.log", AccessLog::File("/var/log/a.log".into())),
            ("./stdout", AccessLog::File("./stdout".into())),
        ] {
            assert_eq!(serde_saphyr::from_str::<AccessLog>(text).unwrap(), expected, "{text}");
        }
        for text in ["on", "syslog", "''", "{path: /a}", "[stdout]"] {
            let error = serde_saphyr::from_str::<AccessLog>(text).unwrap_err().to_string();
            assert!(error.contains("off, stdout"), "{text}: {error}");
        }
    }
}
