//! This knows the configuration of one plugin instance, as Kong sends it with StartInstance.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The configuration of an instance, checked.
///
/// Kong has filled in the schema's defaults and left out what is null, so a missing field means null here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) certificate_source: CertificateSource,
    #[serde(deserialize_with = "lua_list")]
    pub(crate) ca_certificates: Vec<String>,
    #[serde(default, deserialize_with = "lua_list")]
    pub(crate) consumer_by: Vec<ConsumerField>,
    pub(crate) anonymous: Option<String>,
    pub(crate) default_consumer: Option<String>,
    #[serde(default)]
    pub(crate) skip_consumer_lookup: bool,
    pub(crate) authenticated_group_by: Option<GroupBy>,
    #[serde(default)]
    pub(crate) allow_partial_chain: bool,
}

/// Where the client certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CertificateSource {
    /// The headers of `tls-shim`, with its proof.
    Shim,
}

/// A field of a consumer that a name in a certificate may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsumerField {
    Username,
    CustomId,
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

    fn check(&self) -> Result<(), String> {
        if self.ca_certificates.is_empty() {
            return Err("config.ca_certificates: at least one is required".into());
        }
        for (field, name) in [("anonymous", &self.anonymous), ("default_consumer", &self.default_consumer)] {
            if name.as_ref().is_some_and(String::is_empty) {
                return Err(format!("config.{field}: it is empty"));
            }
        }
        Ok(())
    }

    /// Whether any request may need a consumer to be looked up.
    pub(crate) fn needs_consumers(&self) -> bool {
        self.anonymous.is_some()
            || !self.skip_consumer_lookup && (!self.consumer_by.is_empty() || self.default_consumer.is_some())
    }
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
