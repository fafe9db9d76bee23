//! This knows what the settings say of bounds: how long the shim waits, and how much it takes.
//!
//! Each has a value that counts unless another is set, and a range: none can be switched off, by a zero or by a number that
//! nobody lives to see.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::length_of_time::LengthOfTime;

/// How long the shim waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TimeLimits {
    /// From the accepted connection to the end of the TLS handshake, a PROXY header included.
    #[serde(deserialize_with = "minutes")]
    pub(crate) handshake: Duration,
    /// For the header of a request on HTTP/1.1, from the end of the one before. So it is also how long such a connection
    /// may be idle.
    #[serde(deserialize_with = "minutes")]
    pub(crate) header: Duration,
    /// How long a connection may carry no request.
    #[serde(deserialize_with = "hours")]
    pub(crate) idle: Duration,
    /// How long a client may take none of the bytes that wait for it.
    #[serde(deserialize_with = "minutes")]
    pub(crate) stall: Duration,
    /// How long a WebSocket may be without a byte from either side. Kong ends it sooner, by the `read_timeout` of its
    /// service (60 s unless set), so this counts only where that is set to more.
    #[serde(deserialize_with = "hours")]
    pub(crate) tunnel_idle: Duration,
    /// For a TCP connection to Kong.
    #[serde(deserialize_with = "minutes")]
    pub(crate) upstream_connect: Duration,
    /// For a TLS handshake with Kong.
    #[serde(deserialize_with = "minutes")]
    pub(crate) upstream_handshake: Duration,
    /// How long Kong may take for the header of an answer, once it has all of the request that the client has sent. None
    /// unless set: Kong has a limit for each service (`read_timeout`) and for how often it tries again, of which the shim
    /// knows nothing.
    #[serde(deserialize_with = "some_hours")]
    pub(crate) upstream_answer: Option<Duration>,
    /// For the requests that are running when the shim is told to end.
    #[serde(deserialize_with = "hours")]
    pub(crate) drain: Duration,
}

/// How much the shim takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// The connections of clients at a time, over all listeners. None: as many as the file descriptors are good for.
    #[serde(deserialize_with = "connections")]
    pub(crate) connections: Option<usize>,
    /// The bytes of a request's header.
    #[serde(deserialize_with = "header_bytes")]
    pub(crate) header_bytes: usize,
    /// The fields in the header of a request.
    #[serde(deserialize_with = "header_fields")]
    pub(crate) header_fields: usize,
    /// The requests that a connection on HTTP/2 carries at a time.
    #[serde(deserialize_with = "streams")]
    pub(crate) streams: usize,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            // nginx has the same.
            header: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(60 * 60),
            upstream_connect: Duration::from_secs(5),
            upstream_handshake: Duration::from_secs(10),
            upstream_answer: None,
            drain: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: None, header_bytes: 64 * 1024, header_fields: 200, streams: 200 }
    }
}

/// A length of time in which somebody is waited for who does nothing.
fn minutes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    time(deserializer, Duration::from_secs(10 * 60), "10m")
}

/// A length of time in which something may be going on.
fn hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    time(deserializer, Duration::from_secs(24 * 60 * 60), "24h")
}

fn some_hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    hours(deserializer).map(Some)
}

fn time<'de, D: Deserializer<'de>>(
    deserializer: D,
    most: Duration,
    written: &str,
) -> Result<Duration, D::Error> {
    let LengthOfTime(set) = LengthOfTime::deserialize(deserializer)?;
    if set <= most { Ok(set) } else { Err(D::Error::custom(format_args!("it is over {written}"))) }
}

fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    number(deserializer, 1, 1_000_000).map(Some)
}

/// hyper takes no larger header on HTTP/1.1; with fewer, what browsers send would be too much.
fn header_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    number(deserializer, 4 * 1024, 256 * 1024)
}

/// The plugin refuses what has more than Kong shows it, 1000, of which the shim itself adds a few.
fn header_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    number(deserializer, 20, 900)
}

/// Fewer would make clients wait that rely on what every server has (RFC 9113, section 6.5.2, speaks of 100).
fn streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    number(deserializer, 1, 1000)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D, least: usize, most: usize) -> Result<usize, D::Error> {
    let set = usize::deserialize(deserializer)?;
    if (least..=most).contains(&set) {
        Ok(set)
    } else {
        Err(D::Error::custom(format_args!("it is not between {least} and {most}")))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;

    fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    fn refused<T: DeserializeOwned + Debug>(key: &str, table: &[(&str, &str)]) {
        for (value, says) in table {
            let error = parse::<T>(&format!("{key}: {value}")).unwrap_err();
            assert!(error.contains(says), "{key}: {value}: {error}");
        }
    }

    #[test]
    fn each_limit_is_set_by_itself() {
        let set: TimeLimits = parse("{handshake: 2s, upstream_answer: 5m}").unwrap();
        let expected = TimeLimits {
            handshake: Duration::from_secs(2),
            upstream_answer: Some(Duration::from_secs(300)),
            ..TimeLimits::default()
        };
        assert_eq!(set, expected);
        let set: Limits = parse("{connections: 1, streams: 100}").unwrap();
        assert_eq!(set, Limits { connections: Some(1), streams: 100, ..Limits::default() });
    }

    #[test]
    fn no_limit_can_be_switched_off() {
        for key in ["handshake", "header", "stall", "upstream_connect", "upstream_handshake"] {
            refused::<TimeLimits>(
                key,
                &[("0s", "above zero"), ("11m", "over 10m"), ("5", "above zero"), ("off", "above zero")],
            );
            parse::<TimeLimits>(&format!("{key}: 10m")).unwrap();
        }
        for key in ["idle", "tunnel_idle", "upstream_answer", "drain"] {
            refused::<TimeLimits>(
                key,
                &[("0ms", "above zero"), ("25h", "over 24h"), ("-1s", "above zero"), ("off", "above zero")],
            );
            parse::<TimeLimits>(&format!("{key}: 24h")).unwrap();
        }
        for (key, least, most) in [
            ("connections", 1, 1_000_000),
            ("header_bytes", 4096, 262_144),
            ("header_fields", 20, 900),
            ("streams", 1, 1000),
        ] {
            for wrong in [least - 1, most + 1] {
                refused::<Limits>(key, &[(&wrong.to_string(), "it is not between")]);
            }
            refused::<Limits>(key, &[("-1", ""), ("off", ""), ("1.5", "")]);
            for good in [least, most] {
                parse::<Limits>(&format!("{key}: {good}")).unwrap();
            }
        }
        refused::<TimeLimits>("headers", &[("1s", "headers")]);
        refused::<Limits>("stream", &[("1", "stream")]);
    }
}
