//! This knows manual mappings: which names in certificates are which consumers, whatever the consumers are called.

use std::collections::HashMap;

use crate::config::CredentialRecord;
use crate::trust::Trust;
use crate::verify::Verified;

/// The mappings of a plugin's configuration, found by name however many there are.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    by_subject_name: HashMap<String, Vec<Mapping>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Identifies the mapping to Kong and the upstream.
    pub(crate) id: String,
    /// Id or username of the consumer.
    pub(crate) consumer: String,
    /// The entry of `ca_certificates` under which the certificate must have been issued.
    ca_certificate: Option<String>,
}

impl Mappings {
    /// Reads the records of a configuration.
    ///
    /// # Errors
    /// Names the record that says of a name what another has said already: which of the two counts would be chance.
    pub(crate) fn new(records: &[CredentialRecord]) -> Result<Self, String> {
        let mut mappings = Self::default();
        for (position, record) in records.iter().enumerate() {
            let known = mappings.by_subject_name.entry(record.subject_name.clone()).or_default();
            let ca_certificate = record.ca_certificate.clone();
            if known.iter().any(|other| same(&other.ca_certificate, &ca_certificate)) {
                return Err(format!(
                    "config.credentials[{position}]: subject_name {:?} stands twice",
                    record.subject_name
                ));
            }
            known.push(Mapping {
                id: record.id.clone().unwrap_or_else(|| record.subject_name.clone()),
                consumer: record.consumer.clone(),
                ca_certificate,
            });
        }
        Ok(mappings)
    }

    /// The mapping for a verified certificate with these names: first those that name a CA of its chain, then those
    /// that name none (`mtls-auth.md`, "Which consumer").
    pub(crate) fn find(&self, names: &[&str], verified: &Verified, trust: &Trust) -> Option<&Mapping> {
        let candidates = || names.iter().filter_map(|name| self.by_subject_name.get(*name)).flatten();
        let is_issued_under = |entry: &String| {
            trust.certificates_of(entry).iter().any(|digest| verified.is_issued_under(digest))
        };
        candidates()
            .find(|mapping| mapping.ca_certificate.as_ref().is_some_and(is_issued_under))
            .or_else(|| candidates().find(|mapping| mapping.ca_certificate.is_none()))
    }
}

fn same(one: &Option<String>, other: &Option<String>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => crate::config::same_ca(one, other),
        (None, None) => true,
        _ => false,
    }
}
