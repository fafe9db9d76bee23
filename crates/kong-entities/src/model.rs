//! This knows what an entity is and which refers to which.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::mapping::{Mapping, Mappings};

/// All entities of one configuration of Kong, read at one time.
#[derive(Debug, Default)]
pub struct Entities {
    /// By id in lower case.
    pub ca_certificates: HashMap<String, Arc<CaCertificate>>,
    /// In the order of the source.
    pub certificates: Vec<Arc<Certificate>>,
    /// The certificate for each server name, by the name as it is written: exact, `*.example.com`, `example.*`, or `*`
    /// for all others. Kong lets names stand beside each other that differ in case or a trailing dot only.
    pub snis: HashMap<String, Arc<Certificate>>,
    /// In the order of the source.
    pub services: Vec<Service>,
    /// In the order of the source.
    pub routes: Vec<Route>,
    /// In the order of the source.
    pub plugins: Vec<Plugin>,
    pub(crate) consumers: Vec<Arc<Consumer>>,
    pub(crate) consumer_by_id: HashMap<String, usize>,
    pub(crate) consumer_by_username: HashMap<String, usize>,
    pub(crate) consumer_by_custom_id: HashMap<String, usize>,
    pub(crate) mappings: Mappings,
    pub(crate) unknown: bool,
}

/// The name of the plugin that all this is about.
pub(crate) const PLUGIN: &str = "mtls-auth";

/// A `ca_certificates` entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    /// Its certificate, in PEM, as it stands in the source: nobody has parsed it yet.
    pub cert: String,
}

/// A `certificates` entity: what a server shows, with its private keys.
///
/// Any of the texts may be a reference into a vault (`{vault://...}`), which Kong resolves when it uses it. It is kept as
/// it is written: who uses the certificate decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its id. None where a declarative file names none: Kong then makes one up anew at each load.
    pub id: Option<String>,
    /// `cert` and `key`.
    pub primary: CertificateAndKey,
    /// `cert_alt` and `key_alt`: the same with a key of another kind, so that a client may have RSA or ECDSA.
    pub alternative: Option<CertificateAndKey>,
}

/// A certificate and its private key, as they stand in the source: nobody has parsed them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAndKey {
    /// In PEM; what follows the first certificate are those that lead up to its CA.
    pub cert: String,
    /// The key of the first certificate.
    pub key: PrivateKey,
}

/// The text of a private key. It is wiped from memory when the last copy goes, and never shown. What reads a file or an
/// answer of the Admin API may leave traces of it that are out of our hands.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<String>);

impl PrivateKey {
    /// A key of this text.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text, in PEM or a reference into a vault.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// Whether an entry of the plugin's `ca_certificates` is PEM text; it is the id of an entity otherwise. What the plugin
/// server trusts and the shim announces must be read alike.
pub fn is_pem(entry: &str) -> bool {
    entry.contains("-----BEGIN ")
}

/// A `consumers` entity. At least one of `username` and `custom_id` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Kong's id of it, in the case that Kong keeps it in: without a database that is the case of the declarative file,
    /// and Kong finds under no other what belongs to the consumer.
    pub id: String,
    /// Unique among consumers.
    pub username: Option<String>,
    /// Unique among consumers.
    pub custom_id: Option<String>,
}

/// A `services` entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, or its id where it has none: for people to read.
    pub label: String,
    /// Kong's id of it. None where a declarative file names none.
    pub id: Option<String>,
    /// Unique among services.
    pub name: Option<String>,
}

/// A `routes` entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name, or its id where it has none: for people to read.
    pub label: String,
    /// Kong's id of it. None where a declarative file names none.
    pub id: Option<String>,
    /// Unique among routes.
    pub name: Option<String>,
    /// Index of its service in [`Entities::services`].
    pub service: Option<usize>,
    /// The server names that it matches, as written: exact, `*.example.com` or `example.*`. Empty: it matches any.
    pub snis: Vec<String>,
    /// `http`, `https`, `grpc`, `tls`, …; Kong's default where the source names none.
    pub protocols: Vec<String>,
    /// Set where the route is written in the expressions language, which then stands for all other matchers.
    pub expression: Option<String>,
}

/// A `plugins` entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Kong's id of it. None where a declarative file names none.
    pub id: Option<String>,
    /// The name of the plugin, such as `mtls-auth`.
    pub name: String,
    /// Whether Kong runs it.
    pub enabled: bool,
    /// The protocols of routes that it applies to. None where the source leaves them to the schema of the plugin.
    pub protocols: Option<Vec<String>>,
    /// What it applies to.
    pub scope: Scope,
    /// Its configuration: as written, without the schema's defaults, in a declarative file; with them where it comes from
    /// the Admin API. From there it is null for plugins that the reader did not ask for, which is `mtls-auth` alone unless
    /// [`crate::applied_plugins`] says otherwise: it may hold secrets that nobody here needs.
    pub config: serde_json::Value,
}

/// What a plugin applies to; all that is set must match. Nothing set: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Index in [`Entities::services`].
    pub service: Option<usize>,
    /// Index in [`Entities::routes`].
    pub route: Option<usize>,
    /// Whether it applies to one consumer or consumer group only.
    pub consumer: bool,
}

impl Entities {
    /// What stands in for a configuration that nobody has been able to read yet. The plugin applies to everything in it,
    /// so that whoever asks it who is to be asked for a certificate hears: everybody.
    pub fn unknown() -> Self {
        let everything = Plugin {
            id: None,
            name: PLUGIN.into(),
            enabled: true,
            protocols: None,
            scope: Scope::default(),
            config: serde_json::Value::Null,
        };
        Self { plugins: vec![everything], unknown: true, ..Self::default() }
    }

    /// Whether this is a configuration of Kong's, and not [`Self::unknown`].
    pub fn is_known(&self) -> bool {
        !self.unknown
    }

    /// The consumer with this id, in any case.
    pub fn consumer_by_id(&self, id: &str) -> Option<&Arc<Consumer>> {
        self.consumer(&self.consumer_by_id, &id.to_ascii_lowercase())
    }

    /// The consumer with exactly this username.
    pub fn consumer_by_username(&self, username: &str) -> Option<&Arc<Consumer>> {
        self.consumer(&self.consumer_by_username, username)
    }

    /// The consumer with exactly this custom id.
    pub fn consumer_by_custom_id(&self, custom_id: &str) -> Option<&Arc<Consumer>> {
        self.consumer(&self.consumer_by_custom_id, custom_id)
    }

    /// The consumer that a configuration names by its id or else its username, as Kong's `anonymous` does.
    pub fn consumer_by_id_or_username(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.consumer_by_id(name).or_else(|| self.consumer_by_username(name))
    }

    /// The manual mappings for exactly this subject name, at most one for each CA and one without.
    pub fn mappings(&self, subject_name: &str) -> &[Mapping] {
        self.mappings.get(subject_name)
    }

    /// How many consumers there are.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    fn consumer(&self, index: &HashMap<String, usize>, key: &str) -> Option<&Arc<Consumer>> {
        index.get(key).map(|&position| &self.consumers[position])
    }
}
