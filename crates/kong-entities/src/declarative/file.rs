//! This knows the form of Kong's declarative file: what it is written with, before anything is understood of it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[derive(Deserialize, Serialize)]
pub(crate) struct File {
    // Kong requires it. Without it a text that is no declarative file at all would read as one without entities.
    #[serde(rename = "_format_version")]
    pub(crate) format_version: FormatVersion,
    #[serde(default)]
    pub(crate) ca_certificates: Vec<RawCaCertificate>,
    // Kong takes a null for a list that is not there.
    pub(crate) certificates: Option<Vec<RawCertificate>>,
    pub(crate) snis: Option<Vec<RawSni>>,
    #[serde(default, skip_serializing)]
    pub(crate) consumers: Vec<RawConsumer>,
    #[serde(default)]
    pub(crate) services: Vec<RawService>,
    #[serde(default)]
    pub(crate) routes: Vec<RawRoute>,
    #[serde(default)]
    pub(crate) plugins: Vec<RawPlugin>,
    #[serde(default, skip_serializing)]
    pub(crate) mtls_auth_credentials: Vec<RawMapping>,
}

/// `"3.0"`, or `3.0` where somebody left the quotes out.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum FormatVersion {
    Text(String),
    Number(f64),
}

#[derive(Deserialize, Serialize)]
pub(crate) struct RawCaCertificate {
    pub(crate) id: Option<String>,
    pub(crate) cert: String,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct RawCertificate {
    pub(crate) id: Option<String>,
    pub(crate) cert: String,
    pub(crate) key: Zeroizing<String>,
    pub(crate) cert_alt: Option<String>,
    pub(crate) key_alt: Option<Zeroizing<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snis: Option<Vec<RawSni>>,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct RawSni {
    pub(crate) name: String,
    /// Where it is not nested under its certificate.
    pub(crate) certificate: Option<Reference>,
}

#[derive(Deserialize)]
pub(crate) struct RawConsumer {
    pub(crate) id: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) custom_id: Option<String>,
    #[serde(default)]
    pub(crate) plugins: Vec<RawPlugin>,
    #[serde(default)]
    pub(crate) mtls_auth_credentials: Vec<RawMapping>,
}

#[derive(Deserialize)]
pub(crate) struct RawMapping {
    pub(crate) id: Option<String>,
    pub(crate) subject_name: String,
    /// Where it is not nested under its consumer.
    pub(crate) consumer: Option<Reference>,
    pub(crate) ca_certificate: Option<Reference>,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct RawService {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<RawRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) plugins: Vec<RawPlugin>,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct RawRoute {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) service: Option<Reference>,
    pub(crate) snis: Option<Vec<String>>,
    pub(crate) protocols: Option<Vec<String>>,
    pub(crate) expression: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) plugins: Vec<RawPlugin>,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct RawPlugin {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocols: Option<Vec<String>>,
    pub(crate) service: Option<Reference>,
    pub(crate) route: Option<Reference>,
    pub(crate) consumer: Option<Reference>,
    pub(crate) consumer_group: Option<Reference>,
    #[serde(default)]
    pub(crate) config: serde_json::Value,
}

/// How one entity names another: by name (a consumer: by username) or id, bare or in a record.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Reference {
    Bare(String),
    Record {
        id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<String>,
    },
}

impl Reference {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Bare(text) => Some(text),
            Self::Record { id, name, username } => id.as_deref().or(name.as_deref()).or(username.as_deref()),
        }
    }
}

impl FormatVersion {
    /// # Errors
    /// Kong knows no such version.
    pub(crate) fn check(&self) -> Result<(), String> {
        let known = match self {
            Self::Text(text) => matches!(text.as_str(), "1.1" | "2.1" | "3.0"),
            Self::Number(number) => [1.1, 2.1, 3.0].contains(number),
        };
        if known { Ok(()) } else { Err("_format_version: expected \"1.1\", \"2.1\" or \"3.0\"".into()) }
    }
}
