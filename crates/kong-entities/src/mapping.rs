//! This knows manual mappings: `mtls_auth_credentials`, which say which subject name is which consumer
//! (`mtls-auth.md`, "Which consumer").
//!
//! Open-source Kong has no such entity. The commercial edition has, and what it dumps into a declarative file is read
//! here as it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::ids;
use crate::model::Consumer;

/// An `mtls_auth_credentials` entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its id, lower-case; where the source names none, one that is derived from subject name and CA, and so stays the
    /// same from one reading to the next.
    pub id: String,
    /// The name in a certificate, to be compared as it is.
    pub subject_name: String,
    /// Who that is.
    pub consumer: Arc<Consumer>,
    /// The id, lower-case, of the CA that the chain must have verified against. None: any that the plugin trusts.
    pub ca_certificate: Option<String>,
}

/// Mappings by subject name.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    by_subject_name: HashMap<String, Vec<Mapping>>,
    ids: HashSet<String>,
}

impl Mappings {
    pub(crate) fn get(&self, subject_name: &str) -> &[Mapping] {
        self.by_subject_name.get(subject_name).map_or(&[], Vec::as_slice)
    }

    /// All of them, each with the subject name that it is found under.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn each(&self) -> impl Iterator<Item = (&String, &Mapping)> {
        self.by_subject_name
            .iter()
            .flat_map(|(name, mappings)| mappings.iter().map(move |mapping| (name, mapping)))
    }

    /// Adds a mapping.
    ///
    /// # Errors
    /// There is one with the same id, or for the same subject name and CA: which consumer is meant would depend on
    /// the order of the file.
    pub(crate) fn insert(
        &mut self,
        id: Option<String>,
        subject_name: String,
        consumer: Arc<Consumer>,
        ca_certificate: Option<String>,
    ) -> Result<(), String> {
        if subject_name.is_empty() {
            return Err("mtls_auth_credentials: subject_name is empty".into());
        }
        let beside = self.by_subject_name.entry(subject_name.clone()).or_default();
        if beside.iter().any(|mapping| mapping.ca_certificate == ca_certificate) {
            let ca = ca_certificate.map_or("without ca_certificate".into(), |id| format!("with CA {id}"));
            return Err(format!("mtls_auth_credentials: subject_name {subject_name:?} {ca} stands twice"));
        }
        let id = match id {
            Some(id) => id.to_ascii_lowercase(),
            None => ids::mapping_id(&subject_name, ca_certificate.as_deref()),
        };
        if !self.ids.insert(id.clone()) {
            return Err(format!("mtls_auth_credentials: id {id:?} stands twice"));
        }
        beside.push(Mapping { id, subject_name, consumer, ca_certificate });
        Ok(())
    }
}
