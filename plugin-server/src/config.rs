//! This knows the configuration of one plugin instance, as Kong sends it with StartInstance.

mod revocation;

use std::time::Duration;

use client_cert::field::{CLIENT_CERT, HANDOFF, IDENTITY, folded, spells, spells_any};
use client_cert::front::Format;
use kong_entities::is_pem;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::names::AttributeType;
use crate::schema::MAX_CACHE_TTL;
use crate::source::Source;

pub(crate) use self::revocation::RevocationMode;

/// The configuration of an instance, checked.
///
/// Kong has filled in the schema's defaults and left out what is null, so a missing field means null here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    certificate_source: CertificateSource,
    certificate_header_name: Option<String>,
    certificate_header_format: Option<Format>,
    /// Missing means null, and to believe anybody takes more than that.
    #[serde(default = "yes")]
    secure_source: bool,
    #[serde(deserialize_with = "lua_list")]
    pub(crate) ca_certificates: Vec<String>,
    #[serde(default, deserialize_with = "lua_list")]
    pub(crate) consumer_by: Vec<ConsumerField>,
    #[serde(default, deserialize_with = "lua_list")]
    pub(crate) credentials: Vec<CredentialRecord>,
    #[serde(default, deserialize_with = "lua_list")]
    pub(crate) san_dirname_matcher: Vec<AttributeType>,
    pub(crate) anonymous: Option<String>,
    pub(crate) default_consumer: Option<String>,
    #[serde(default)]
    pub(crate) skip_consumer_lookup: bool,
    pub(crate) authenticated_group_by: Option<GroupBy>,
    #[serde(default)]
    pub(crate) allow_partial_chain: bool,
    #[serde(default)]
    pub(crate) allow_server_auth_usage: bool,
    /// How long an answer of the source of Kong's entities counts; a declarative file has no age.
    #[serde(default = "default_cache_ttl", deserialize_with = "seconds")]
    pub(crate) cache_ttl: Duration,
    /// Missing means null, which the schema refuses; then the default counts all the same.
    #[serde(default)]
    pub(crate) revocation_check_mode: RevocationMode,
    /// For one fetch of an OCSP response or a CRL as a whole.
    #[serde(default = "revocation::default_http_timeout", deserialize_with = "revocation::milliseconds")]
    http_timeout: Duration,
    /// How long at most an answer about a certificate counts.
    #[serde(default = "revocation::default_cert_cache_ttl", deserialize_with = "seconds")]
    pub(crate) cert_cache_ttl: Duration,
    http_proxy_host: Option<String>,
    http_proxy_port: Option<u16>,
    https_proxy_host: Option<String>,
    https_proxy_port: Option<u16>,
    /// Missing means null, and to believe anybody takes more than that.
    #[serde(default = "yes")]
    ssl_verify: bool,
    #[serde(default)]
    send_ca_dn: bool,
    #[serde(default)]
    pub(crate) inject_client_cert_details: bool,
    pub(crate) client_cert_header_name: Option<String>,
    pub(crate) client_serial_header_name: Option<String>,
    pub(crate) client_cert_issuer_dn_header_name: Option<String>,
    pub(crate) client_cert_subject_dn_header_name: Option<String>,
    pub(crate) client_cert_fingerprint_header_name: Option<String>,
}

/// `certificate_source`; see [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CertificateSource {
    Shim,
    Header,
    Tls,
}

/// A field of a consumer that a name in a certificate may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsumerField {
    Username,
    CustomId,
}

impl ConsumerField {
    /// Kong's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::CustomId => "custom_id",
        }
    }
}

/// A manual mapping of a name to a consumer, in the plugin's own configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialRecord {
    /// What `X-Credential-Identifier` says; the subject name where it is left out.
    pub(crate) id: Option<String>,
    /// The name in the certificate.
    pub(crate) subject_name: String,
    /// Id or username.
    pub(crate) consumer: String,
    /// One of `ca_certificates`: the mapping then counts only for certificates that were issued under it.
    pub(crate) ca_certificate: Option<String>,
}

/// The part of the subject that is the group in skip mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum GroupBy {
    #[serde(rename = "CN")]
    Cn,
    #[serde(rename = "DN")]
    Dn,
}

impl Config {
    /// Reads the JSON text of StartInstance.
    ///
    /// # Errors
    /// What is wrong, beginning with the field: `config.ca_certificates: …`. Kong shows it in its error log.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let mut fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("config: not a JSON object: {error}"))?;
        if fields.contains_key("consumer_id") {
            return Err("consumer: the plugin cannot apply to one consumer".into());
        }
        fields.retain(|name, value| !is_kongs_own(name) && !value.is_null());
        let config: Self = serde_path_to_error::deserialize(Value::Object(fields)).map_err(describe)?;
        config.check()?;
        Ok(config)
    }

    /// Where certificates come from.
    ///
    /// # Errors
    /// Names the field that is missing, or that means nothing with this source.
    pub(crate) fn source(&self) -> Result<Source, String> {
        let name = self.certificate_header_name.clone();
        let format = self.certificate_header_format;
        if self.send_ca_dn && self.certificate_source != CertificateSource::Shim {
            return Err("config.send_ca_dn: only with certificate_source: shim, which does the asking".into());
        }
        if self.certificate_source != CertificateSource::Header {
            let unused = [("name", name.is_some()), ("format", format.is_some())];
            if let Some((field, _)) = unused.into_iter().find(|(_, is_set)| *is_set) {
                return Err(format!(
                    "config.certificate_header_{field}: only with certificate_source: header"
                ));
            }
        }
        Ok(match self.certificate_source {
            CertificateSource::Shim => Source::Shim,
            CertificateSource::Tls => Source::Tls,
            CertificateSource::Header => {
                let required = |field| {
                    format!("config.certificate_header_{field}: required with certificate_source: header")
                };
                let name = name.ok_or_else(|| required("name"))?;
                // Our shim's own header may carry it, as RFC 9440 has it.
                if !spells(name.as_bytes(), CLIENT_CERT) {
                    check_header_name(&name)
                        .map_err(|problem| format!("config.certificate_header_name: {problem}"))?;
                }
                let format = format.ok_or_else(|| required("format"))?;
                Source::Header { name, format, secure: self.secure_source }
            }
        })
    }

    fn check(&self) -> Result<(), String> {
        self.source()?;
        if self.ca_certificates.is_empty() {
            return Err("config.ca_certificates: at least one is required".into());
        }
        self.fetch_settings()?;
        self.check_credentials()?;
        self.check_detail_headers()?;
        for (field, name) in [("anonymous", &self.anonymous), ("default_consumer", &self.default_consumer)] {
            if name.as_ref().is_some_and(String::is_empty) {
                return Err(format!("config.{field}: it is empty"));
            }
        }
        Ok(())
    }

    /// A header of details must be one, and must not be one by which we say something else: an upstream would take what
    /// stands in a certificate for what we say of it.
    fn check_detail_headers(&self) -> Result<(), String> {
        let headers = [
            ("client_cert_header_name", &self.client_cert_header_name),
            ("client_serial_header_name", &self.client_serial_header_name),
            ("client_cert_issuer_dn_header_name", &self.client_cert_issuer_dn_header_name),
            ("client_cert_subject_dn_header_name", &self.client_cert_subject_dn_header_name),
            ("client_cert_fingerprint_header_name", &self.client_cert_fingerprint_header_name),
        ];
        let mut known: Vec<String> = Vec::new();
        for (field, name) in headers {
            let Some(name) = name else { continue };
            check_header_name(name).map_err(|problem| format!("config.{field}: {problem}"))?;
            let folded = folded(name);
            if known.contains(&folded) {
                return Err(format!("config.{field}: {name:?} is the name of another header, too"));
            }
            known.push(folded);
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), String> {
        for (position, record) in self.credentials.iter().enumerate() {
            let refuse = |problem: String| Err(format!("config.credentials[{position}].{problem}"));
            if record.subject_name.is_empty() {
                return refuse("subject_name: it is empty".into());
            }
            if record.consumer.is_empty() {
                return refuse("consumer: it is empty".into());
            }
            // It would never match, which its author cannot have meant.
            let is_trusted = |ca: &String| self.ca_certificates.iter().any(|other| same_ca(other, ca));
            if !record.ca_certificate.as_ref().is_none_or(is_trusted) {
                return refuse("ca_certificate: it is not among config.ca_certificates".into());
            }
        }
        Ok(())
    }

    /// Whether a name in a certificate may be a consumer's in this field.
    pub(crate) fn maps_by(&self, field: ConsumerField) -> bool {
        !self.skip_consumer_lookup && self.consumer_by.contains(&field)
    }

    /// Who a caller is of whom no name leads to a consumer.
    pub(crate) fn fallback(&self) -> Option<&str> {
        self.default_consumer.as_deref().or(self.anonymous.as_deref())
    }
}

/// A field name (RFC 9110, section 5.1) that is none of those that the plugin guards.
fn check_header_name(name: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no header name"));
    }
    if spells_any(name.as_bytes(), &HANDOFF) || spells_any(name.as_bytes(), &IDENTITY) {
        return Err(format!("{name:?} is a header of the plugin's own with another meaning"));
    }
    Ok(())
}

/// Whether two entries name the same CA: ids in any case, PEM as it stands.
pub(crate) fn same_ca(entry: &str, other: &str) -> bool {
    if is_pem(entry) { entry == other } else { entry.eq_ignore_ascii_case(other) }
}

/// As in the schema.
fn default_cache_ttl() -> Duration {
    Duration::from_secs(60)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if !(0.0..=f64::from(MAX_CACHE_TTL)).contains(&seconds) {
        return Err(serde::de::Error::custom(format_args!(
            "it is not between 0 and {MAX_CACHE_TTL} seconds"
        )));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn yes() -> bool {
    true
}

/// What Kong adds to the fields of the schema.
fn is_kongs_own(name: &str) -> bool {
    name.starts_with("__") || matches!(name, "route_id" | "service_id")
}

fn describe(error: serde_path_to_error::Error<serde_json::Error>) -> String {
    match error.path().to_string().as_str() {
        // An unknown or missing field: the error itself names it.
        "." => format!("config: {}", error.inner()),
        path => format!("config.{path}: {}", error.inner()),
    }
}

/// Lua has one kind of table, so Kong sends an empty list as `{}`.
fn lua_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    struct ListVisitor<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for ListVisitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, items: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(items))
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, entries: A) -> Result<Vec<T>, A::Error> {
            Nothing::deserialize(serde::de::value::MapAccessDeserializer::new(entries))?;
            Ok(Vec::new())
        }
    }

    deserializer.deserialize_any(ListVisitor(std::marker::PhantomData))
}

#[cfg(test)]
mod tests;
