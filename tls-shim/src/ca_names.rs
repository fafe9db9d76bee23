//! This knows the CA names of a CertificateRequest: what each plugin has to announce, and what comes of several.
//!
//! A client that goes by the names holds back every certificate that no named CA has issued: browsers, Java's and
//! Windows' clients do. So a list must never be shorter than its plugins mean it to be. No list at all holds back
//! nothing, and is what is left wherever one would be wrong.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kong_entities::{Entities, Plugin};
use openssl::x509::X509;
use serde_json::Value;

use crate::distinguished_name::DistinguishedName;
use crate::limits;

/// What one plugin has to announce.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Announcement {
    /// Nothing: it has no `send_ca_dn`, or its certificates come from elsewhere than the shim.
    Silent,
    /// The subjects of its CAs, in the order of its `ca_certificates`.
    Names(Vec<DistinguishedName>),
    /// Its CAs cannot all be named, for this reason.
    Broken(String),
}

/// What a CertificateRequest says about CAs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sent {
    /// These names. At least one, none twice, and not more than fit.
    Names(Arc<[DistinguishedName]>),
    /// No names: no plugin has any to announce.
    Nothing,
    /// No names: those of a plugin are not all known.
    Incomplete,
    /// No names: they would take this many bytes.
    TooLong(usize),
}

/// Reads announcements, each CA once however many plugins refer to it.
pub(crate) struct Announcements<'a> {
    entities: &'a Entities,
    read: HashMap<&'a str, Result<Vec<DistinguishedName>, String>>,
}

impl<'a> Announcements<'a> {
    pub(crate) fn of(entities: &'a Entities) -> Self {
        Self { entities, read: HashMap::new() }
    }

    /// What this plugin has to announce. Its configuration stands as in the source, so what is missing has the schema's
    /// default; what Kong would refuse does not come from a running Kong, and asks for nothing.
    pub(crate) fn read(&mut self, plugin: &'a Plugin) -> Announcement {
        let config = &plugin.config;
        let is_ours = match &config["certificate_source"] {
            Value::Null => true,
            source => source == "shim",
        };
        if !is_ours || config["send_ca_dn"] != Value::Bool(true) {
            return Announcement::Silent;
        }
        let entries = config["ca_certificates"].as_array().map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() {
            return Announcement::Broken("ca_certificates: it names no CA".into());
        }
        let mut names = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            let of_entry = match entry.as_str() {
                Some(entry) => self.names(entry),
                None => Err("it is no text".into()),
            };
            match of_entry {
                Ok(of_entry) => names.extend(of_entry),
                Err(problem) => {
                    return Announcement::Broken(format!("ca_certificates[{position}]: {problem}"));
                }
            }
        }
        Announcement::Names(names)
    }

    fn names(&mut self, entry: &'a str) -> Result<Vec<DistinguishedName>, String> {
        let entities = self.entities;
        self.read.entry(entry).or_insert_with(|| subjects(entities, entry)).clone()
    }
}

/// The subjects of the certificates that an entry of `ca_certificates` stands for: PEM, or the id of an entity.
fn subjects(entities: &Entities, entry: &str) -> Result<Vec<DistinguishedName>, String> {
    let pem = if kong_entities::is_pem(entry) {
        entry
    } else {
        let entity = entities.ca_certificates.get(&entry.to_ascii_lowercase());
        &entity.ok_or_else(|| format!("there is no CA certificate with the id {entry:?}"))?.cert
    };
    let certificates = X509::stack_from_pem(pem.as_bytes())
        .map_err(|_| "it holds what is no certificate in PEM".to_owned())?;
    if certificates.is_empty() {
        return Err("it holds no certificate in PEM".into());
    }
    let subjects = certificates.iter().map(|certificate| DistinguishedName::new(certificate.subject_name()));
    subjects.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

impl Sent {
    /// What is sent where these plugins meet (`mtls-auth.md`, "The TLS side"): the names of all that announce any, in
    /// the order of the plugins.
    ///
    /// A plugin that announces nothing takes nothing away from the names of the others, as the page has it. Clients that
    /// go by the list then hold back certificates that only this plugin would have taken: whoever sets `send_ca_dn` on
    /// one of several plugins that meet on a name has to set it on all of them, and `tls-shim check` says where.
    pub(crate) fn merged<'a>(plugins: impl IntoIterator<Item = &'a Announcement>) -> Self {
        let mut names = Vec::new();
        for plugin in plugins {
            match plugin {
                Announcement::Silent => {}
                Announcement::Names(of_plugin) => names.extend(of_plugin),
                Announcement::Broken(_) => return Self::Incomplete,
            }
        }
        Self::of(names)
    }

    /// What is sent where both are to be: all names, unless those of either cannot be sent.
    pub(crate) fn with(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Nothing, sent) | (sent, Self::Nothing) => sent.clone(),
            (Self::Names(names), Self::Names(others)) => Self::of(names.iter().chain(others.iter())),
            (Self::Incomplete, _) | (_, Self::Incomplete) => Self::Incomplete,
            (Self::TooLong(bytes), _) | (_, Self::TooLong(bytes)) => Self::TooLong(*bytes),
        }
    }

    fn of<'a>(names: impl IntoIterator<Item = &'a DistinguishedName>) -> Self {
        let mut known = HashSet::new();
        let names: Vec<_> = names.into_iter().filter(|name| known.insert(*name)).cloned().collect();
        if names.is_empty() {
            return Self::Nothing;
        }
        // Each has its length before it, in two bytes (RFC 5246, section 7.4.4; RFC 8446, section 4.2.4).
        let bytes = names.iter().map(|name| 2 + name.len()).sum();
        if bytes > limits::CA_NAMES { Self::TooLong(bytes) } else { Self::Names(names.into()) }
    }
}
