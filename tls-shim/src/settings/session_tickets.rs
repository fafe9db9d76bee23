//! This knows what the settings say of session tickets.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::length_of_time::LengthOfTime;

/// How long a session may be resumed, unless set.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The longest that it may be: a client proves to have its key at the beginning of a session only.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether sessions may be resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionTickets {
    /// Every connection is a full handshake.
    Off,
    On(TicketSettings),
}

/// How tickets are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TicketSettings {
    /// How long after its full handshake a session may be resumed, in whole seconds.
    pub(crate) lifetime: Duration,
    /// The secrets that several shims share. None: the shim has some of its own.
    pub(crate) key_file: Option<PathBuf>,
}

impl Default for SessionTickets {
    fn default() -> Self {
        Self::On(TicketSettings { lifetime: LIFETIME, key_file: None })
    }
}

/// What stands in the file beside `off`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    lifetime: Option<Lifetime>,
    key_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(try_from = "LengthOfTime")]
struct Lifetime(Duration);

impl TryFrom<LengthOfTime> for Lifetime {
    type Error = &'static str;

    fn try_from(LengthOfTime(set): LengthOfTime) -> Result<Self, Self::Error> {
        let is_whole = set.subsec_nanos() == 0;
        if is_whole && set <= MAX_LIFETIME {
            Ok(Self(set))
        } else {
            Err("it is not whole seconds, or over 24h")
        }
    }
}

impl<'de> Deserialize<'de> for SessionTickets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OffOrKeys)
    }
}

/// Reads either. An untagged enum would, too, but could not say what is wrong with one.
struct OffOrKeys;

impl<'de> Visitor<'de> for OffOrKeys {
    type Value = SessionTickets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off, or lifetime and key_file")
    }

    /// `off` is one in YAML.
    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
        if on { Err(E::invalid_value(Unexpected::Bool(on), &self)) } else { Ok(SessionTickets::Off) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == "off" {
            Ok(SessionTickets::Off)
        } else {
            Err(E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Keys { lifetime, key_file } = Keys::deserialize(MapAccessDeserializer::new(map))?;
        let lifetime = lifetime.map_or(LIFETIME, |Lifetime(set)| set);
        Ok(SessionTickets::On(TicketSettings { lifetime, key_file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SessionTickets, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn tickets_are_on_unless_they_are_off() {
        let on = |seconds, key_file: Option<&str>| {
            let lifetime = Duration::from_secs(seconds);
            SessionTickets::On(TicketSettings { lifetime, key_file: key_file.map(PathBuf::from) })
        };
        assert_eq!(SessionTickets::default(), on(3600, None));
        for (text, expected) in [
            ("off", SessionTickets::Off),
            ("'off'", SessionTickets::Off),
            ("{}", on(3600, None)),
            ("{lifetime: 24h}", on(86_400, None)),
            ("{lifetime: 2000ms, key_file: /k}", on(2, Some("/k"))),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for (text, says) in [
            ("on", "off, or lifetime"),
            ("1h", "off, or lifetime"),
            ("{lifetime: 25h}", "24h"),
            ("{lifetime: 1500ms}", "whole seconds"),
            ("{lifetime: 0s}", "above zero"),
            ("{lifetimes: 1h}", "lifetimes"),
            ("[1h]", "off, or lifetime"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
