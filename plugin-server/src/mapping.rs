//! This knows manual mappings: which names in certificates are which consumers, whatever the consumers are called.

use std::collections::HashMap;
use std::sync::Arc;

use kong_entities::Consumer;

use crate::config::CredentialRecord;
use crate::entity_source::EntitySource;
use crate::revocation::Cleared;
use crate::step::step;
use crate::trust::Trust;

/// The mappings of a plugin's configuration, found by name however many there are.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    by_subject_name: HashMap<String, Vec<Mapping>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    /// Identifies the mapping to Kong and the upstream.
    id: String,
    /// Id or username of the consumer.
    consumer: String,
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

    /// The mappings for a name.
    fn of(&self, name: &str) -> &[Mapping] {
        self.by_subject_name.get(name).map_or(&[], Vec::as_slice)
    }
}

/// The consumer of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// Id or username, as the plugin's configuration has it.
    Named(String),
    /// As the declarative file has it.
    Entity(Arc<Consumer>),
}

/// The mapping for a verified certificate that was cleared with these names, and what identifies it: first those that name a CA of its
/// chain, then those that name none (`mtls-auth.md`, "Which consumer"). Where both have one, that of the plugin's
/// configuration comes before that of the declarative file.
pub(crate) fn find(
    own: &Mappings,
    entities: &EntitySource,
    names: &[&str],
    cleared: &Cleared,
    trust: &Trust,
) -> Option<(Mapped, String)> {
    let is_issued_under =
        |entry: &str| trust.certificates_of(entry).iter().any(|digest| cleared.is_issued_under(digest));
    // For a mapping without CA the second time, for one with a CA that fits the first.
    let counts = |id: &str, ca: Option<&str>, with_ca: bool| {
        let counts = match ca {
            Some(entry) => with_ca && is_issued_under(entry),
            None => !with_ca,
        };
        if with_ca == ca.is_some() {
            let condition = if ca.is_some() { " for one CA only" } else { "" };
            step!(
                "mapping",
                "{id:?}{condition}: {}",
                if counts { "it counts" } else { "not the CA of this chain" }
            );
        }
        counts
    };
    let found = [true, false].into_iter().find_map(|with_ca| {
        let own = names.iter().flat_map(|name| own.of(name)).find_map(|mapping| {
            counts(&mapping.id, mapping.ca_certificate.as_deref(), with_ca)
                .then(|| (Mapped::Named(mapping.consumer.clone()), mapping.id.clone()))
        });
        own.or_else(|| {
            names.iter().flat_map(|name| entities.mappings(name)).find_map(|mapping| {
                counts(&mapping.id, mapping.ca_certificate.as_deref(), with_ca)
                    .then(|| (Mapped::Entity(Arc::clone(&mapping.consumer)), mapping.id.clone()))
            })
        })
    });
    if found.is_none() {
        step!("mapping", "none of the names has a manual mapping that counts");
    }
    found
}

fn same(one: &Option<String>, other: &Option<String>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => crate::config::same_ca(one, other),
        (None, None) => true,
        _ => false,
    }
}
