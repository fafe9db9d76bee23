//! This knows the way of a request through the access phase: from its headers to a consumer, or to a refusal.

use std::sync::Arc;
use std::time::SystemTime;

use kong_entities::{Consumer, ConsumerKey};
use tokio::time::Instant;

use crate::certificate::Certificate;
use crate::config::{Config, ConsumerField, GroupBy};
use crate::details;
use crate::handoff;
use crate::instance::Instance;
use crate::mapping::{self, Mapped};
use crate::pdk::{Credential, Headers, LogLevel, Pdk, PdkFault};
use crate::reason::{Reason, Refusal};
use crate::revocation::Cleared;
use crate::source;
use crate::step::step;
use crate::trust::Trust;

/// How the access phase ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Kong goes on with the request.
    Proceed,
    /// Kong answers the request with this. Nothing comes after it.
    Refuse { status: u16, message: &'static str },
}

/// What was decided about a request, and why. This is counted; Kong is told the [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Decision {
    /// The certificate is trusted, and stands for a consumer where one is wanted.
    Authenticated,
    /// An earlier plugin has authenticated the request.
    LeftAlone,
    /// Not authenticated, and let pass as the anonymous consumer.
    Anonymous(Reason),
    /// Not authenticated, and answered by Kong.
    Refused(Reason),
}

impl Decision {
    /// What Kong is told.
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Authenticated | Self::LeftAlone | Self::Anonymous(_) => Verdict::Proceed,
            Self::Refused(Reason::NoCertificate) => NO_CERTIFICATE,
            Self::Refused(reason) => match reason.status() {
                401 => NOT_VERIFIED,
                status => fault(status),
            },
        }
    }
}

const NO_CERTIFICATE: Verdict =
    Verdict::Refuse { status: 401, message: "No required TLS certificate was sent" };
const NOT_VERIFIED: Verdict = Verdict::Refuse { status: 401, message: "TLS certificate failed verification" };

/// For whatever is our own fault: never the upstream, and nothing that tells a client why.
pub(crate) const FAULT: Verdict = fault(500);

const fn fault(status: u16) -> Verdict {
    Verdict::Refuse { status, message: "An unexpected error occurred" }
}

/// Runs the access phase for one request, and refuses it where that takes too long: Kong would wait for a minute and then
/// let it pass.
pub(crate) async fn access(pdk: &mut impl Pdk, instance: &Instance, now: SystemTime) -> Decision {
    match tokio::time::timeout(instance.time_limit(), run(pdk, instance, now)).await {
        Ok(decision) => decision,
        Err(_) => refuse(pdk, Denied::because(Reason::Deadline)).await,
    }
}

/// Reads the request's headers, decides, and tells Kong. Three PDK calls for a certificate that passes and what its
/// [`source`] costs; one more for a group in skip mode; one more where `anonymous` is set, for only Kong knows whether
/// an earlier plugin has authenticated the request; one more for a line in the log where it passes though nobody knows
/// whether it has been revoked; and those that find a consumer where Kong itself is asked.
async fn run(pdk: &mut impl Pdk, instance: &Instance, now: SystemTime) -> Decision {
    let begun = Instant::now();
    let headers = match pdk.request_headers().await {
        Ok(headers) => headers,
        Err(PdkFault) => return refuse(pdk, Denied::because(Reason::Internal)).await,
    };
    if instance.config.anonymous.is_some() && pdk.is_authenticated().await {
        return leave_alone(pdk, instance, &headers).await;
    }
    let caller = match decide(pdk, instance, &headers, now, begun).await {
        Ok(caller) => caller,
        Err(denied) => return refuse(pdk, denied).await,
    };
    // Who it is comes last. Where Kong loses us before that, in MsgPack:1, the guard finds nobody; the other way round it
    // would find somebody, and the request would pass with what its client wrote into the headers that are ours.
    let changes = handoff::upstream_headers(&headers, caller.identity(), &instance.own_headers);
    pdk.set_request_headers(changes).await;
    match &caller {
        Caller::Consumer { consumer, credential, .. } => {
            pdk.authenticate(Some(consumer), Some(credential)).await;
            Decision::Authenticated
        }
        Caller::Trusted { group, credential, .. } => {
            if let Some(group) = group {
                pdk.set_authenticated_group(group).await;
            }
            // A group alone counts with the acl plugin only; by the credential, other authentication plugins see that
            // somebody has authenticated the request. And a consumer of an earlier one does not stay beside it.
            pdk.authenticate(None, Some(credential)).await;
            Decision::Authenticated
        }
        Caller::Anonymous { consumer, denied } => {
            if denied.reason() != Reason::NoCertificate {
                pdk.log(LogLevel::Notice, denied.line("passed as anonymous")).await;
            }
            pdk.authenticate(Some(consumer), None).await;
            Decision::Anonymous(denied.reason())
        }
    }
}

/// Somebody else has authenticated the request: all that is ours to do is to keep from the upstream what a client may
/// not have set.
async fn leave_alone(pdk: &mut impl Pdk, instance: &Instance, headers: &Headers) -> Decision {
    if handoff::may_be_incomplete(headers) {
        return refuse(pdk, Denied::because(Reason::TooManyHeaders)).await;
    }
    let removed = handoff::foreign_headers(headers, &instance.own_headers);
    if !removed.is_empty() {
        pdk.set_request_headers(removed).await;
    }
    Decision::LeftAlone
}

async fn refuse(pdk: &mut impl Pdk, denied: Denied) -> Decision {
    let level = if denied.reason().is_fault() { LogLevel::Err } else { LogLevel::Notice };
    pdk.log(level, denied.line("refused")).await;
    Decision::Refused(denied.reason())
}

/// Refuses a request that no instance can decide about.
pub(crate) async fn refuse_without_instance(pdk: &mut impl Pdk, refusal: Refusal) -> Decision {
    refuse(pdk, Denied::because(refusal)).await
}

/// Who the caller is, as far as the instance wants to know.
#[derive(Debug)]
enum Caller {
    /// Trusted, and mapped to a consumer; with the headers about the certificate, where they are wanted.
    Consumer { consumer: Arc<Consumer>, credential: Credential, details: Vec<(String, String)> },
    /// Trusted, which is enough in skip mode.
    Trusted { group: Option<String>, credential: Credential, identity: Vec<(String, String)> },
    /// Not authenticated, and welcome all the same.
    Anonymous { consumer: Arc<Consumer>, denied: Denied },
}

impl Caller {
    /// What the upstream is told of it.
    fn identity(&self) -> Vec<(String, String)> {
        match self {
            Self::Consumer { consumer, credential, details } => {
                let mut identity = consumer_headers(consumer);
                identity.push(("X-Credential-Identifier".into(), credential.id.clone()));
                identity.extend_from_slice(details);
                identity
            }
            Self::Trusted { identity, .. } => identity.clone(),
            Self::Anonymous { consumer, .. } => {
                let mut identity = consumer_headers(consumer);
                identity.push(("X-Anonymous-Consumer".into(), "true".into()));
                identity
            }
        }
    }
}

/// Why a request is not authenticated, with the certificate where there was one to read.
#[derive(Debug)]
struct Denied {
    refusal: Refusal,
    certificate: Option<Box<Certificate>>,
}

impl Denied {
    fn because(refusal: impl Into<Refusal>) -> Self {
        Self { refusal: refusal.into(), certificate: None }
    }

    fn reason(&self) -> Reason {
        self.refusal.reason
    }

    /// One line of Kong's error log. What comes from a certificate is escaped by [`crate::names`].
    fn line(&self, what: &str) -> String {
        let mut line = format!("{what}: {}", self.reason().code());
        if let Some(detail) = &self.refusal.detail {
            line.push_str(&format!(", {detail}"));
        }
        if let Some(certificate) = &self.certificate {
            line.push_str(&format!(
                ", subject: {}, issuer: {}, serial: {}, sha256: {}",
                in_log(&certificate.subject, "\""),
                in_log(&certificate.issuer, "\""),
                in_log(&certificate.serial, ""),
                certificate.fingerprint
            ));
        }
        line
    }
}

/// How much of a name, or of a serial number, stands in a line. Kong's nginx cuts lines at some 2000 bytes: a long name
/// would push out what comes after it, and the log would be as large as clients like.
const MOST_IN_LOG: usize = 400;

/// A text between quotes, if any; of a long one its beginning, and how long it is.
fn in_log(text: &str, quote: &str) -> String {
    let beginning = text.get(..MOST_IN_LOG).unwrap_or(text);
    let rest =
        if beginning.len() < text.len() { format!("... ({} characters)", text.len()) } else { String::new() };
    format!("{quote}{beginning}{quote}{rest}")
}

/// The decision, by what the request carries, the instance, the entities and the time.
async fn decide(
    pdk: &mut impl Pdk,
    instance: &Instance,
    headers: &Headers,
    now: SystemTime,
    begun: Instant,
) -> Result<Caller, Denied> {
    // Before anything else, for `anonymous` must not let through what could not be looked at.
    if handoff::may_be_incomplete(headers) {
        return Err(Denied::because(Reason::TooManyHeaders));
    }
    let denied = match identify(pdk, instance, headers, now, begun).await {
        Err(denied) if !denied.reason().is_fault() => denied,
        settled => return settled,
    };
    match &instance.config.anonymous {
        None => Err(denied),
        Some(name) => {
            let consumer = configured_consumer(pdk, instance, "anonymous", name).await?;
            Ok(Caller::Anonymous { consumer, denied })
        }
    }
}

async fn identify(
    pdk: &mut impl Pdk,
    instance: &Instance,
    headers: &Headers,
    now: SystemTime,
    begun: Instant,
) -> Result<Caller, Denied> {
    let presented = source::presented(pdk, instance, headers, now).await.map_err(Denied::because)?;
    step!("presented", "{}, and {} more certificates", subject(&presented.leaf), presented.chain.len());
    let trust = instance.trust().await.map_err(Denied::because)?;
    step!("trust", "{}", trust.subjects());
    let verified = instance.verify(&trust, &presented, now).map_err(|refusal| {
        let certificate = Certificate::from_der(&presented.leaf).map(Box::new);
        Denied { certificate, ..Denied::because(refusal) }
    })?;
    let denied = |refusal, certificate: &Certificate| Denied {
        refusal,
        certificate: Some(Box::new(certificate.clone())),
    };
    let cleared = instance.clear(Arc::clone(&verified), begun).await;
    let (cleared, notice) = cleared.map_err(|refusal| denied(refusal, verified.certificate()))?;
    if let Some(notice) = notice {
        pdk.log(LogLevel::Notice, denied(notice, cleared.certificate()).line("let pass")).await;
    }
    let details = details::headers(&instance.config, &presented.leaf, cleared.certificate());
    if instance.config.skip_consumer_lookup {
        return Ok(trusted(&instance.config, &cleared, details));
    }
    match find_consumer(pdk, instance, &trust, &cleared).await? {
        Some((consumer, credential)) => Ok(Caller::Consumer { consumer, credential, details }),
        None => Err(denied(Reason::NoConsumer.into(), cleared.certificate())),
    }
}

/// Skip mode: the certificate is the credential, and its subject may be a group.
fn trusted(config: &Config, cleared: &Cleared, details: Vec<(String, String)>) -> Caller {
    let certificate = cleared.certificate();
    let group = match config.authenticated_group_by {
        Some(GroupBy::Cn) => certificate.common_name.clone(),
        Some(GroupBy::Dn) => Some(certificate.subject.clone()),
        None => None,
    };
    let mut identity = vec![("X-Client-Cert-Dn".into(), certificate.subject.clone())];
    identity.extend(certificate.alternative_names_text().map(|names| ("X-Client-Cert-San".into(), names)));
    identity.extend(details);
    Caller::Trusted { group, credential: Credential { id: certificate.subject.clone() }, identity }
}

/// The consumer for a verified certificate (`mtls-auth.md`, "Which consumer"), and what stands for the certificate: the
/// mapping, or the name that led there.
async fn find_consumer(
    pdk: &mut impl Pdk,
    instance: &Instance,
    trust: &Trust,
    cleared: &Cleared,
) -> Result<Option<(Arc<Consumer>, Credential)>, Denied> {
    let config = &instance.config;
    let names = cleared.certificate().subject_names(&config.san_dirname_matcher);
    step!("names", "{names:?}");
    if let Some((mapped, id)) = mapping::find(&instance.mappings, instance.entities(), &names, cleared, trust)
    {
        let consumer = match mapped {
            Mapped::Named(name) => configured_consumer(pdk, instance, "credentials", &name).await?,
            Mapped::Entity(consumer) => consumer,
        };
        return Ok(Some((consumer, Credential { id })));
    }
    // Name by name, and for each name the username first: the order in the configuration does not count.
    let fields = [ConsumerField::Username, ConsumerField::CustomId];
    for name in &names {
        for field in fields.into_iter().filter(|field| config.maps_by(*field)) {
            let key = match field {
                ConsumerField::Username => ConsumerKey::Username((*name).to_owned()),
                ConsumerField::CustomId => ConsumerKey::CustomId((*name).to_owned()),
            };
            let found = instance.consumer(pdk, key, config.fallback()).await.map_err(Denied::because)?;
            step!("consumer", "{} {name:?}: {}", field.name(), told(found.as_deref()));
            if let Some(consumer) = found {
                return Ok(Some((consumer, Credential { id: (*name).to_owned() })));
            }
        }
    }
    let Some(default) = &config.default_consumer else { return Ok(None) };
    let consumer = configured_consumer(pdk, instance, "default_consumer", default).await?;
    let id = names.first().map_or_else(|| cleared.certificate().subject.clone(), |name| (*name).to_owned());
    Ok(Some((consumer, Credential { id })))
}

/// A consumer that the configuration names must be there: to pass without it would be to pass as nobody.
async fn configured_consumer(
    pdk: &mut impl Pdk,
    instance: &Instance,
    field: &str,
    name: &str,
) -> Result<Arc<Consumer>, Denied> {
    let key = ConsumerKey::IdOrUsername(name.to_owned());
    let found = instance.consumer(pdk, key, None).await.map_err(Denied::because)?;
    step!("consumer", "{field} {name:?}: {}", told(found.as_deref()));
    found.ok_or_else(|| {
        let problem = format_args!("config.{field}: there is no consumer {name:?}");
        Denied::because(Refusal::with(Reason::ConsumerUnavailable, problem))
    })
}

/// What a look-up gave, for whoever follows the steps.
fn told(consumer: Option<&Consumer>) -> String {
    consumer.map_or_else(
        || "there is none".to_owned(),
        |consumer| format!("the consumer with the id {}", consumer.id),
    )
}

/// The same of a certificate that is not trusted yet.
fn subject(leaf: &[u8]) -> String {
    match Certificate::from_der(leaf) {
        Some(leaf) => {
            format!("\"{}\", issued by \"{}\", sha256 {}", leaf.subject, leaf.issuer, leaf.fingerprint)
        }
        None => "what is no certificate, or has names that cannot be read".to_owned(),
    }
}

fn consumer_headers(consumer: &Consumer) -> Vec<(String, String)> {
    let mut headers = vec![("X-Consumer-ID".into(), consumer.id.clone())];
    headers.extend(consumer.username.clone().map(|username| ("X-Consumer-Username".into(), username)));
    headers.extend(consumer.custom_id.clone().map(|custom_id| ("X-Consumer-Custom-ID".into(), custom_id)));
    headers
}

#[cfg(test)]
mod tests;
