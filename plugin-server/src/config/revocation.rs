//! This knows the fields about revocation (`mtls-auth.md`, "Configuration").

use std::time::Duration;

use revocation::fetch::Settings;
use serde::{Deserialize, Deserializer};

use crate::config::Config;
use crate::schema::MAX_HTTP_TIMEOUT;

/// `revocation_check_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum RevocationMode {
    /// Nobody is asked.
    Skip,
    /// Only who is said to be revoked is refused.
    #[default]
    IgnoreCaError,
    /// Only who is said not to be revoked passes.
    Strict,
}

impl Config {
    /// How OCSP responses and CRLs are fetched.
    ///
    /// # Errors
    /// Names the half of a proxy that is missing.
    pub(crate) fn fetch_settings(&self) -> Result<Settings, String> {
        Ok(Settings {
            timeout: self.http_timeout,
            http_proxy: proxy("http_proxy", self.http_proxy_host.as_ref(), self.http_proxy_port)?,
            https_proxy: proxy("https_proxy", self.https_proxy_host.as_ref(), self.https_proxy_port)?,
            ssl_verify: self.ssl_verify,
        })
    }
}

/// To go without the proxy that somebody has named one half of would be to go where they did not want it.
fn proxy(name: &str, host: Option<&String>, port: Option<u16>) -> Result<Option<(String, u16)>, String> {
    match (host, port) {
        (None, None) => Ok(None),
        (Some(host), _) if host.is_empty() => Err(format!("config.{name}_host: it is empty")),
        (Some(host), Some(port)) => Ok(Some((host.clone(), port))),
        (Some(_), None) => Err(format!("config.{name}_port: required with {name}_host")),
        (None, Some(_)) => Err(format!("config.{name}_host: required with {name}_port")),
    }
}

/// As in the schema.
pub(super) fn default_http_timeout() -> Duration {
    Duration::from_secs(30)
}

/// As in the schema.
pub(super) fn default_cert_cache_ttl() -> Duration {
    Duration::from_secs(60_000)
}

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let milliseconds = f64::deserialize(deserializer)?;
    if !(1.0..=f64::from(MAX_HTTP_TIMEOUT)).contains(&milliseconds) {
        return Err(serde::de::Error::custom(format_args!(
            "it is not between 1 and {MAX_HTTP_TIMEOUT} milliseconds"
        )));
    }
    Ok(Duration::from_secs_f64(milliseconds / 1000.0))
}
