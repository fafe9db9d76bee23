//! This knows Kong's declarative file: what is nested in what, and how entities refer to one another.
//!
//! Only what we need is read; the rest is Kong's to check, which it does before it runs with such a file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::ids;
use crate::model::{CaCertificate, Consumer, Entities, Plugin, Route, Scope, Service};

/// Why a declarative file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclarativeError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not a declarative configuration.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where it has one.
        problem: String,
    },
}

/// Reads a declarative file: JSON where its name ends in `.json`, else YAML, as Kong does.
///
/// # Errors
/// Names the file and what is wrong with it. An empty file is wrong: an editor that is about to write the rest must
/// not unprotect anything.
pub fn load(path: &Path) -> Result<Entities, DeclarativeError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| DeclarativeError::Io { path: path.to_owned(), error })?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let parsed = if is_json { parse_json(&text) } else { parse_yaml(&text) };
    parsed.map_err(|problem| DeclarativeError::Content { path: path.to_owned(), problem })
}

/// Reads a declarative configuration in JSON.
///
/// # Errors
/// What is wrong with it.
pub fn parse_json(text: &str) -> Result<Entities, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    serde_json::from_str::<File>(text).map_err(|error| error.to_string()).and_then(build)
}

/// Reads a declarative configuration in YAML.
///
/// # Errors
/// What is wrong with it. The text itself is not quoted, since it may hold private keys.
pub fn parse_yaml(text: &str) -> Result<Entities, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    // Kong's operator wrote the file, so it may be large; what stays bounded is what a small text can be blown up to.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<File>(text, options)
        .map_err(|error| error.to_string())
        .and_then(build)
}

#[derive(Deserialize)]
struct File {
    // Kong requires it. Without it a text that is no declarative file at all would read as one without entities.
    #[serde(rename = "_format_version")]
    format_version: FormatVersion,
    #[serde(default)]
    ca_certificates: Vec<RawCaCertificate>,
    #[serde(default)]
    consumers: Vec<RawConsumer>,
    #[serde(default)]
    services: Vec<RawService>,
    #[serde(default)]
    routes: Vec<RawRoute>,
    #[serde(default)]
    plugins: Vec<RawPlugin>,
    #[serde(default)]
    mtls_auth_credentials: Vec<RawMapping>,
}

/// `"3.0"`, or `3.0` where somebody left the quotes out.
#[derive(Deserialize)]
#[serde(untagged)]
enum FormatVersion {
    Text(String),
    Number(f64),
}

#[derive(Deserialize)]
struct RawCaCertificate {
    id: Option<String>,
    cert: String,
}

#[derive(Deserialize)]
struct RawConsumer {
    id: Option<String>,
    username: Option<String>,
    custom_id: Option<String>,
    #[serde(default)]
    plugins: Vec<RawPlugin>,
    #[serde(default)]
    mtls_auth_credentials: Vec<RawMapping>,
}

#[derive(Deserialize)]
struct RawMapping {
    id: Option<String>,
    subject_name: String,
    /// Where it is not nested under its consumer.
    consumer: Option<Reference>,
    ca_certificate: Option<Reference>,
}

#[derive(Deserialize)]
struct RawService {
    id: Option<String>,
    name: Option<String>,
    #[serde(default)]
    routes: Vec<RawRoute>,
    #[serde(default)]
    plugins: Vec<RawPlugin>,
}

#[derive(Deserialize)]
struct RawRoute {
    id: Option<String>,
    name: Option<String>,
    service: Option<Reference>,
    snis: Option<Vec<String>>,
    protocols: Option<Vec<String>>,
    expression: Option<String>,
    #[serde(default)]
    plugins: Vec<RawPlugin>,
}

#[derive(Deserialize)]
struct RawPlugin {
    name: String,
    enabled: Option<bool>,
    service: Option<Reference>,
    route: Option<Reference>,
    consumer: Option<Reference>,
    consumer_group: Option<Reference>,
    #[serde(default)]
    config: serde_json::Value,
}

/// How one entity names another: by name (a consumer: by username) or id, bare or in a record.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Bare(String),
    Record { id: Option<String>, name: Option<String>, username: Option<String> },
}

impl Reference {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Bare(text) => Some(text),
            Self::Record { id, name, username } => id.as_deref().or(name.as_deref()).or(username.as_deref()),
        }
    }
}

fn build(file: File) -> Result<Entities, String> {
    let mut builder = Builder::default();
    check_version(&file.format_version)?;
    for ca in file.ca_certificates {
        builder.ca_certificate(ca)?;
    }
    // Every service and route first: a plugin or route at the top may refer to one that is nested further down.
    for service in file.services {
        builder.service(service)?;
    }
    for route in file.routes {
        builder.route(route, None)?;
    }
    for consumer in file.consumers {
        builder.consumer(consumer)?;
    }
    for mapping in file.mtls_auth_credentials {
        builder.mapping(mapping, None)?;
    }
    for plugin in file.plugins {
        builder.plugins.push((plugin, Scope::default()));
    }
    builder.finish()
}

fn check_version(version: &FormatVersion) -> Result<(), String> {
    let known = match version {
        FormatVersion::Text(text) => matches!(text.as_str(), "1.1" | "2.1" | "3.0"),
        FormatVersion::Number(number) => [1.1, 2.1, 3.0].contains(number),
    };
    if known { Ok(()) } else { Err("_format_version: expected \"1.1\", \"2.1\" or \"3.0\"".into()) }
}

#[derive(Default)]
struct Builder {
    entities: Entities,
    services: HashMap<String, usize>,
    routes: HashMap<String, usize>,
    route_services: Vec<(usize, Reference)>,
    /// With the scope that its nesting gives it.
    plugins: Vec<(RawPlugin, Scope)>,
}

impl Builder {
    fn ca_certificate(&mut self, ca: RawCaCertificate) -> Result<(), String> {
        // Kong would make up an id that nobody can refer to.
        let Some(id) = ca.id else { return Ok(()) };
        match self.entities.ca_certificates.entry(id.to_ascii_lowercase()) {
            Entry::Occupied(_) => Err(format!("ca_certificates: id {id} stands twice")),
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(CaCertificate { cert: ca.cert }));
                Ok(())
            }
        }
    }

    fn consumer(&mut self, raw: RawConsumer) -> Result<(), String> {
        let scope = Scope { consumer: true, ..Scope::default() };
        self.plugins.extend(raw.plugins.into_iter().map(|plugin| (plugin, scope)));
        let id = match (raw.id, &raw.username) {
            (Some(id), _) => id,
            (None, Some(username)) => ids::consumer_id(username),
            (None, None) if !raw.mtls_auth_credentials.is_empty() => {
                return Err("consumers: one with mtls_auth_credentials has neither id nor username".into());
            }
            // Kong gives such a consumer another id on every load: we cannot name it to Kong.
            (None, None) => {
                let custom_id = raw.custom_id.unwrap_or_default();
                tracing::warn!(custom_id, "a consumer without id and username cannot be mapped");
                return Ok(());
            }
        };
        let entities = &mut self.entities;
        let position = entities.consumers.len();
        let key = id.to_ascii_lowercase();
        let consumer = Arc::new(Consumer { id, username: raw.username, custom_id: raw.custom_id });
        // Whoever stands second under a name would be taken for the first.
        let taken = [
            (&mut entities.consumer_by_id, "id", Some(&key)),
            (&mut entities.consumer_by_username, "username", consumer.username.as_ref()),
            (&mut entities.consumer_by_custom_id, "custom_id", consumer.custom_id.as_ref()),
        ]
        .into_iter()
        .find_map(|(index, field, key)| {
            let key = key?;
            index.insert(key.clone(), position).map(|_| format!("consumers: {field} {key:?} stands twice"))
        });
        entities.consumers.push(Arc::clone(&consumer));
        taken.map_or(Ok(()), Err)?;
        raw.mtls_auth_credentials.into_iter().try_for_each(|mapping| self.mapping(mapping, Some(&consumer)))
    }

    fn mapping(&mut self, raw: RawMapping, nested_under: Option<&Arc<Consumer>>) -> Result<(), String> {
        let problem = |problem: String| format!("mtls_auth_credentials {:?}: {problem}", raw.subject_name);
        let consumer = match (nested_under, &raw.consumer) {
            (Some(consumer), None) => consumer,
            (None, Some(reference)) => {
                let name =
                    reference.text().ok_or_else(|| problem("consumer: expected a name or an id".into()))?;
                self.entities
                    .consumer_by_id_or_username(name)
                    .ok_or_else(|| problem(format!("there is no consumer {name:?}")))?
            }
            (None, None) => return Err(problem("consumer is missing".into())),
            (Some(_), Some(_)) => return Err(problem("consumer: it stands under one already".into())),
        };
        let consumer = Arc::clone(consumer);
        let ca_certificate = raw.ca_certificate.as_ref().map(|reference| {
            let id = reference.text().ok_or_else(|| problem("ca_certificate: expected an id".into()))?;
            let key = id.to_ascii_lowercase();
            // One that no chain can verify against, most likely by a mistake, would silently leave its subject name to
            // the mapping without a CA.
            if !self.entities.ca_certificates.contains_key(&key) {
                return Err(problem(format!("there is no CA certificate {id:?}")));
            }
            Ok(key)
        });
        self.entities.mappings.insert(raw.id, raw.subject_name, consumer, ca_certificate.transpose()?)
    }

    fn service(&mut self, raw: RawService) -> Result<(), String> {
        let position = self.entities.services.len();
        name(&mut self.services, "services", raw.id.as_deref(), raw.name.as_deref(), position)?;
        self.entities.services.push(Service { label: label("service", raw.name, raw.id, position) });
        let scope = Scope { service: Some(position), ..Scope::default() };
        self.plugins.extend(raw.plugins.into_iter().map(|plugin| (plugin, scope)));
        raw.routes.into_iter().try_for_each(|route| self.route(route, Some(position)))
    }

    fn route(&mut self, raw: RawRoute, service: Option<usize>) -> Result<(), String> {
        let position = self.entities.routes.len();
        name(&mut self.routes, "routes", raw.id.as_deref(), raw.name.as_deref(), position)?;
        if let (None, Some(reference)) = (service, raw.service) {
            self.route_services.push((position, reference));
        }
        self.entities.routes.push(Route {
            label: label("route", raw.name, raw.id, position),
            service,
            snis: raw.snis.unwrap_or_default(),
            protocols: raw.protocols.unwrap_or_else(|| vec!["http".into(), "https".into()]),
            expression: raw.expression,
        });
        let scope = Scope { route: Some(position), ..Scope::default() };
        self.plugins.extend(raw.plugins.into_iter().map(|plugin| (plugin, scope)));
        Ok(())
    }

    fn finish(mut self) -> Result<Entities, String> {
        for (route, reference) in self.route_services {
            let service = find(&self.services, "route", "service", &reference)?;
            self.entities.routes[route].service = Some(service);
        }
        for (raw, mut scope) in self.plugins {
            if let Some(reference) = &raw.service {
                scope.service = Some(find(&self.services, &raw.name, "service", reference)?);
            }
            if let Some(reference) = &raw.route {
                scope.route = Some(find(&self.routes, &raw.name, "route", reference)?);
            }
            scope.consumer |= raw.consumer.is_some() || raw.consumer_group.is_some();
            let enabled = raw.enabled.unwrap_or(true);
            self.entities.plugins.push(Plugin { name: raw.name, enabled, scope, config: raw.config });
        }
        Ok(self.entities)
    }
}

/// Notes by which names an entity can be referred to.
fn name(
    index: &mut HashMap<String, usize>,
    kind: &str,
    id: Option<&str>,
    name: Option<&str>,
    position: usize,
) -> Result<(), String> {
    for key in [id, name].into_iter().flatten() {
        if index.insert(key.to_owned(), position).is_some_and(|previous| previous != position) {
            return Err(format!("{kind}: {key:?} stands twice"));
        }
    }
    Ok(())
}

fn label(kind: &str, name: Option<String>, id: Option<String>, position: usize) -> String {
    name.or(id).unwrap_or_else(|| format!("{kind} {}", position + 1))
}

/// A reference that leads nowhere is an error, as it is for Kong: to pass over the plugin would leave something open.
fn find(
    index: &HashMap<String, usize>,
    from: &str,
    kind: &str,
    reference: &Reference,
) -> Result<usize, String> {
    let text = reference.text().ok_or_else(|| format!("{from}: {kind}: expected a name or an id"))?;
    index.get(text).copied().ok_or_else(|| format!("{from}: there is no {kind} {text:?}"))
}
