//! This knows how the entities of a declarative file refer to one another, by nesting and by name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::file::{
    File, RawCaCertificate, RawCertificate, RawConsumer, RawMapping, RawPlugin, RawRoute, RawService, RawSni,
    Reference,
};
use crate::ids;
use crate::model::{
    CaCertificate, Certificate, CertificateAndKey, Consumer, Entities, Plugin, PrivateKey, Route, Scope,
    Service,
};

/// Finds out what refers to what: by nesting, by id or by name, as somebody writes it.
///
/// # Errors
/// What does not fit together.
pub(crate) fn build(file: File) -> Result<Entities, String> {
    build_with(Builder { by_name: true, ..Builder::default() }, file)
}

/// The same where references are ids only, as Kong itself gives them. One's name may then be another's id.
///
/// # Errors
/// What does not fit together.
pub(crate) fn build_by_id(file: File) -> Result<Entities, String> {
    build_with(Builder::default(), file)
}

fn build_with(mut builder: Builder, file: File) -> Result<Entities, String> {
    file.format_version.check()?;
    for ca in file.ca_certificates {
        builder.ca_certificate(ca)?;
    }
    for certificate in file.certificates.unwrap_or_default() {
        builder.certificate(certificate)?;
    }
    for sni in file.snis.unwrap_or_default() {
        builder.sni(sni)?;
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

#[derive(Default)]
struct Builder {
    /// Whether services and routes can be referred to by name.
    by_name: bool,
    entities: Entities,
    certificates: HashMap<String, Arc<Certificate>>,
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

    fn certificate(&mut self, raw: RawCertificate) -> Result<(), String> {
        let place = format!("certificates {}", raw.id.as_deref().unwrap_or("without id"));
        let pair = |cert, key| CertificateAndKey { cert, key: PrivateKey::new(key) };
        let alternative = match (raw.cert_alt, raw.key_alt) {
            (Some(cert), Some(key)) => Some(pair(cert, key)),
            (None, None) => None,
            _ => return Err(format!("{place}: cert_alt and key_alt stand together or not at all")),
        };
        let primary = pair(raw.cert, raw.key);
        let certificate = Arc::new(Certificate { id: raw.id, primary, alternative });
        // In the case that they are written in: Kong takes two ids that differ in it for two.
        if let Some(id) = &certificate.id
            && self.certificates.insert(id.clone(), Arc::clone(&certificate)).is_some()
        {
            return Err(format!("certificates: id {id} stands twice"));
        }
        for sni in raw.snis.unwrap_or_default() {
            if sni.certificate.is_some() {
                return Err(format!("{place}: sni {:?}: certificate: it stands under one already", sni.name));
            }
            self.name_certificate(sni.name, &certificate)?;
        }
        self.entities.certificates.push(certificate);
        Ok(())
    }

    fn sni(&mut self, raw: RawSni) -> Result<(), String> {
        let problem = |problem: &str| format!("snis {:?}: {problem}", raw.name);
        let reference = raw.certificate.as_ref().ok_or_else(|| problem("certificate is missing"))?;
        let id = reference.text().ok_or_else(|| problem("certificate: expected an id"))?;
        let certificate = self.certificates.get(id);
        let certificate = certificate.ok_or_else(|| problem(&format!("there is no certificate {id:?}")))?;
        let certificate = Arc::clone(certificate);
        self.name_certificate(raw.name, &certificate)
    }

    fn name_certificate(&mut self, name: String, certificate: &Arc<Certificate>) -> Result<(), String> {
        match self.entities.snis.entry(name) {
            Entry::Occupied(taken) => Err(format!("snis: name {:?} stands twice", taken.key())),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(certificate));
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
        let name = raw.name.as_deref().filter(|_| self.by_name);
        index(&mut self.services, "services", raw.id.as_deref(), name, position)?;
        let label = label("service", raw.name.as_ref(), raw.id.as_ref(), position);
        self.entities.services.push(Service { label, id: raw.id, name: raw.name });
        let scope = Scope { service: Some(position), ..Scope::default() };
        self.plugins.extend(raw.plugins.into_iter().map(|plugin| (plugin, scope)));
        raw.routes.into_iter().try_for_each(|route| self.route(route, Some(position)))
    }

    fn route(&mut self, raw: RawRoute, service: Option<usize>) -> Result<(), String> {
        let position = self.entities.routes.len();
        let name = raw.name.as_deref().filter(|_| self.by_name);
        index(&mut self.routes, "routes", raw.id.as_deref(), name, position)?;
        if let (None, Some(reference)) = (service, raw.service) {
            self.route_services.push((position, reference));
        }
        self.entities.routes.push(Route {
            label: label("route", raw.name.as_ref(), raw.id.as_ref(), position),
            id: raw.id,
            name: raw.name,
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
            let RawPlugin { id, name, protocols, config, .. } = raw;
            self.entities.plugins.push(Plugin { id, name, enabled, protocols, scope, config });
        }
        Ok(self.entities)
    }
}

/// Notes by which names an entity can be referred to.
fn index(
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

fn label(kind: &str, name: Option<&String>, id: Option<&String>, position: usize) -> String {
    name.or(id).cloned().unwrap_or_else(|| format!("{kind} {}", position + 1))
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
