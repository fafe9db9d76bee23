//! This knows Kong's Admin API, as far as entities are read from it: what to ask, and what to believe of the answer.
//!
//! A name comes from a client's certificate and may be anything, and a server or a front may answer anything. So a name
//! never becomes more than one segment of a path or one value of a query, and an entity counts only if it says itself
//! that it is the one that was asked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ids::is_id;
use crate::json_problem::json_problem;
use crate::node::{Node, RawNode, version_of_server};
use crate::{CaCertificate, Consumer, SourceError, SourceFault};

mod connections;
mod settings;

pub(crate) use connections::Answer;
use connections::Connections;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use connections::Script;
pub use settings::{AdminSettings, AdminSettingsError, AdminToken};

/// The most bytes that one entity may have.
const MAX_ENTITY_BYTES: usize = 1 << 20;

/// The most bytes that a page of a list may have.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// The most bytes that all pages of a list may have together. 100,000 routes have some 50 MB.
const MAX_LIST_BYTES: usize = 1 << 30;

/// How many entities to a page: the most that Kong gives.
const PAGE_SIZE: usize = 1000;

/// How many to a page where each may hold two chains and two keys: a thousand of them may be too long for one page.
const CERTIFICATE_PAGE_SIZE: usize = 100;

/// What Kong says while it has no configuration.
const NO_CONFIGURATION: &str = "00000000000000000000000000000000";

/// The most pages that a list may have, so that none is endless.
const MAX_PAGES: usize = 1000;

/// The longest name that is asked for, in bytes. Percent-encoded it still fits into the 8 KiB that Kong's nginx takes
/// for a request line; nobody is found under a longer one.
const MAX_NAME_BYTES: usize = 2048;

/// A client of Kong's Admin API. Its connections are kept for the next request, and no more than 16 requests run at a time.
pub struct AdminClient {
    connections: Connections,
}

impl AdminClient {
    /// Prepares a client; nothing is asked yet.
    ///
    /// # Errors
    /// Which setting is wrong, and why.
    pub fn new(settings: AdminSettings) -> Result<Self, AdminSettingsError> {
        Ok(Self { connections: Connections::new(settings)? })
    }

    /// A client that asks nobody: these are the answers.
    ///
    /// # Errors
    /// See [`Self::new`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn scripted(settings: AdminSettings, script: Box<Script>) -> Result<Self, AdminSettingsError> {
        Ok(Self { connections: Connections::scripted(settings, script)? })
    }

    /// Whether Kong's Admin API is there and lets us read. Worth asking at the start: under a wrong path, Kong answers
    /// every question with "Not found", as if there were no consumers.
    ///
    /// # Errors
    /// It is not there, or not an Admin API.
    pub async fn check(&self) -> Result<(), SourceError> {
        let target = format!("{}/consumers?size=1", self.prefix());
        self.required::<Page<RawConsumer>>(&target, MAX_ENTITY_BYTES).await.map(drop)
    }

    /// The CA certificate with this id. What has not the form of an id names none.
    ///
    /// # Errors
    /// See [`SourceFault`].
    pub async fn ca_certificate(&self, id: &str) -> Result<Option<Arc<CaCertificate>>, SourceError> {
        if !is_id(id) {
            return Ok(None);
        }
        let target = format!("{}/ca_certificates/{id}", self.prefix());
        let Some(ca) = self.entity::<RawCaCertificate>(&target).await? else { return Ok(None) };
        if !ca.id.eq_ignore_ascii_case(id) {
            return Err(self.another(&target));
        }
        Ok(Some(Arc::new(CaCertificate { cert: ca.cert })))
    }

    /// The consumer with this id. What has not the form of an id names none.
    ///
    /// The id is asked for in the case that it is given in: without a database, Kong knows it only as it stands in the
    /// declarative file.
    ///
    /// # Errors
    /// See [`SourceFault`].
    pub async fn consumer_by_id(&self, id: &str) -> Result<Option<Arc<Consumer>>, SourceError> {
        if !is_id(id) {
            return Ok(None);
        }
        let target = format!("{}/consumers/{id}", self.prefix());
        let Some(consumer) = self.entity::<RawConsumer>(&target).await? else { return Ok(None) };
        if !consumer.id.eq_ignore_ascii_case(id) {
            return Err(self.another(&target));
        }
        self.believed(consumer, &target).map(Some)
    }

    /// The consumer with exactly this username. One that has the form of an id costs a walk through all consumers
    /// ([`Self::consumers_by_id_like_username`]), for Kong looks for such a name among the ids only.
    ///
    /// # Errors
    /// See [`SourceFault`].
    pub async fn consumer_by_username(&self, username: &str) -> Result<Option<Arc<Consumer>>, SourceError> {
        if !can_be_asked(username) {
            return Ok(None);
        }
        if is_id(username) {
            return Ok(self.consumers_by_id_like_username().await?.remove(username));
        }
        let target = format!("{}/consumers/{}", self.prefix(), encoded(username));
        let Some(consumer) = self.entity::<RawConsumer>(&target).await? else { return Ok(None) };
        if consumer.username.as_deref() != Some(username) {
            return Err(self.another(&target));
        }
        self.believed(consumer, &target).map(Some)
    }

    /// The consumer with exactly this custom id.
    ///
    /// # Errors
    /// See [`SourceFault`].
    pub async fn consumer_by_custom_id(&self, custom_id: &str) -> Result<Option<Arc<Consumer>>, SourceError> {
        if !can_be_asked(custom_id) {
            return Ok(None);
        }
        let target = format!("{}/consumers?custom_id={}", self.prefix(), encoded(custom_id));
        let found: Page<RawConsumer> = self.required(&target, MAX_ENTITY_BYTES).await?;
        // A server that does not know the parameter gives a list of anybody.
        if found.data.iter().any(|consumer| consumer.custom_id.as_deref() != Some(custom_id)) {
            return Err(self.another(&target));
        }
        match <[RawConsumer; 1]>::try_from(found.data) {
            Ok([consumer]) => self.believed(consumer, &target).map(Some),
            Err(none) if none.is_empty() => Ok(None),
            Err(_) => Err(self.error(&target, SourceFault::Malformed("several consumers have it".into()))),
        }
    }

    /// The consumer that a configuration names by its id or else its username, as `kong.client.load_consumer` does.
    ///
    /// # Errors
    /// See [`SourceFault`].
    pub async fn consumer_by_id_or_username(&self, name: &str) -> Result<Option<Arc<Consumer>>, SourceError> {
        match self.consumer_by_id(name).await? {
            Some(consumer) => Ok(Some(consumer)),
            None => self.consumer_by_username(name).await,
        }
    }

    /// All consumers whose username has the form of an id, by that username. A walk through all consumers.
    ///
    /// # Errors
    /// See [`SourceFault`]. Where one page fails nothing is given.
    pub async fn consumers_by_id_like_username(&self) -> Result<HashMap<String, Arc<Consumer>>, SourceError> {
        let mut found = HashMap::new();
        self.each_page("consumers", |page: Vec<RawConsumer>| {
            for consumer in page {
                if let Some(username) = consumer.username.clone().filter(|username| is_id(username)) {
                    found.insert(username, consumer);
                }
            }
        })
        .await?;
        let target = format!("{}/consumers", self.prefix());
        found
            .into_iter()
            .map(|(username, consumer)| Ok((username, self.believed(consumer, &target)?)))
            .collect()
    }

    /// All entities of a collection such as `plugins`, page by page. A change in between may show in some pages and not
    /// in others.
    ///
    /// # Errors
    /// See [`SourceFault`]. Where one page fails nothing is given.
    pub async fn list<T: DeserializeOwned>(&self, collection: &'static str) -> Result<Vec<T>, SourceError> {
        let mut all = Vec::new();
        self.each_page(collection, |mut page| all.append(&mut page)).await?;
        Ok(all)
    }

    /// What stands for the whole configuration that Kong has now, where it says so: any change changes it.
    ///
    /// A Kong without a database does, in `GET /status` (some 5 ms on 3.9.1): a digest of the text that it was given, so
    /// that the same text is the same again. A Kong with a database has nothing of the kind, nor does any answer of either
    /// carry an `ETag` or a date.
    ///
    /// # Errors
    /// See [`SourceFault`]; that there is no configuration is one of them.
    pub async fn configuration_hash(&self) -> Result<Option<String>, SourceError> {
        let target = format!("{}/status", self.prefix());
        match self.required::<RawStatus>(&target, MAX_ENTITY_BYTES).await {
            Ok(RawStatus { configuration_hash: Some(hash) }) if hash == NO_CONFIGURATION => {
                Err(self.error(&target, SourceFault::NoConfiguration))
            }
            Ok(RawStatus { configuration_hash }) => Ok(configuration_hash),
            // A front may let through no more than the lists: then those are what there is.
            Err(SourceError { fault: SourceFault::Refused(_) | SourceFault::Status(404), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the node is that answers, and how it is set up.
    ///
    /// # Errors
    /// See [`SourceFault`]. A front may not let it through, though all else can be read.
    pub async fn node(&self) -> Result<Node, SourceError> {
        let target = format!("{}/", self.prefix());
        let before = SystemTime::now();
        let asked = async {
            let answer = self.connections.get(&target, MAX_ENTITY_BYTES).await?;
            let after = SystemTime::now();
            let date =
                answer.date.as_ref().and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
            let server = answer.server.as_ref().and_then(|server| version_of_server(server.to_str().ok()?));
            let (version, settings) = match (ok_json::<RawNode>(&answer), server) {
                (Ok(raw), _) => (raw.version.clone(), Some(raw.settings())),
                (Err(SourceFault::Status(_)), Some(version)) => (version, None),
                (Err(fault), _) => return Err(fault),
            };
            Ok(Node { version, settings, date, asked: (before, after) })
        };
        asked.await.map_err(|fault| self.error(&target, fault))
    }

    /// Where the Admin API is, for people to read.
    pub fn url(&self) -> String {
        self.connections.endpoint().url(self.prefix())
    }

    /// An error that is about no single question.
    pub(crate) fn fault(&self, fault: SourceFault) -> SourceError {
        self.error(self.prefix(), fault)
    }

    async fn each_page<T: DeserializeOwned>(
        &self,
        collection: &'static str,
        mut take: impl FnMut(Vec<T>),
    ) -> Result<(), SourceError> {
        let size = if collection.ends_with("certificates") { CERTIFICATE_PAGE_SIZE } else { PAGE_SIZE };
        let first = format!("{}/{collection}?size={size}", self.prefix());
        let mut bytes = 0;
        let mut target = first.clone();
        let mut seen = HashSet::new();
        for _ in 0..MAX_PAGES {
            let (page, length) = self.required_with_length::<Page<T>>(&target, MAX_PAGE_BYTES).await?;
            bytes += length;
            if bytes > MAX_LIST_BYTES {
                let problem = format!("its pages are longer than {MAX_LIST_BYTES} bytes");
                return Err(self.error(&first, SourceFault::Malformed(problem)));
            }
            take(page.data);
            // Where `next` leads is not looked at: it knows nothing of a prefix, and could lead anywhere.
            let problem = match (page.offset, page.next) {
                (None, None) => return Ok(()),
                (None, Some(_)) => "there is a next page but no offset",
                (Some(offset), _) => {
                    target = format!("{first}&offset={}", encoded(&offset));
                    if seen.insert(offset) {
                        continue;
                    }
                    "its pages go round in a circle"
                }
            };
            return Err(self.error(&target, SourceFault::Malformed(problem.into())));
        }
        let problem = format!("there are more than {MAX_PAGES} pages");
        Err(self.error(&first, SourceFault::Malformed(problem)))
    }

    /// An entity, or that Kong knows of none.
    async fn entity<T: DeserializeOwned>(&self, target: &str) -> Result<Option<T>, SourceError> {
        let asked = async {
            let answer = self.connections.get(target, MAX_ENTITY_BYTES).await?;
            if answer.status == 404 {
                // Any server has a 404 for what it does not know. Only Kong's own says that there is no such entity.
                return json::<NotFound>(&answer).map(|NotFound { message: _ }| None);
            }
            ok_json(&answer).map(Some)
        };
        asked.await.map_err(|fault| self.error(target, fault))
    }

    /// What is there in any case.
    async fn required<T: DeserializeOwned>(&self, target: &str, max_bytes: usize) -> Result<T, SourceError> {
        self.required_with_length(target, max_bytes).await.map(|(entity, _)| entity)
    }

    /// The same, and how many bytes it had.
    async fn required_with_length<T: DeserializeOwned>(
        &self,
        target: &str,
        max_bytes: usize,
    ) -> Result<(T, usize), SourceError> {
        let asked = async {
            let answer = self.connections.get(target, max_bytes).await?;
            Ok((ok_json(&answer)?, answer.body.len()))
        };
        asked.await.map_err(|fault| self.error(target, fault))
    }

    fn believed(&self, consumer: RawConsumer, target: &str) -> Result<Arc<Consumer>, SourceError> {
        let RawConsumer { id, username, custom_id } = consumer;
        if !is_id(&id) {
            return Err(self.error(target, SourceFault::Malformed("the consumer's id is none".into())));
        }
        Ok(Arc::new(Consumer { id, username, custom_id }))
    }

    fn another(&self, target: &str) -> SourceError {
        self.error(target, SourceFault::Malformed("it is about another entity".into()))
    }

    fn error(&self, target: &str, fault: SourceFault) -> SourceError {
        SourceError { url: self.connections.endpoint().url(target), fault }
    }

    fn prefix(&self) -> &str {
        &self.connections.endpoint().prefix
    }
}

#[derive(Deserialize)]
struct RawCaCertificate {
    id: String,
    cert: String,
}

#[derive(Deserialize)]
struct RawConsumer {
    id: String,
    username: Option<String>,
    custom_id: Option<String>,
}

#[derive(Deserialize)]
struct RawStatus {
    configuration_hash: Option<String>,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    offset: Option<String>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct NotFound {
    #[expect(dead_code, reason = "that it is there tells Kong's 404 from another")]
    message: String,
}

fn ok_json<T: DeserializeOwned>(answer: &Answer) -> Result<T, SourceFault> {
    match answer.status.as_u16() {
        200 => json(answer),
        status @ (401 | 403) => Err(SourceFault::Refused(status)),
        status => Err(SourceFault::Status(status)),
    }
}

fn json<T: DeserializeOwned>(answer: &Answer) -> Result<T, SourceFault> {
    let content_type = answer.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let problem = format!("status {}, content type {content_type:?}", answer.status.as_u16());
        return Err(SourceFault::Malformed(problem));
    }
    serde_json::from_slice(&answer.body).map_err(|error| SourceFault::Malformed(json_problem(&error)))
}

/// Whether anybody can be called so, and be asked for by that name. An empty name would ask for the list of all. PostgreSQL holds no NUL, and Kong's
/// nginx refuses one in a path.
pub fn can_be_asked(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains('\0')
}

/// One segment of a path or one value of a query. Kong reads `+` as a space in both. A name that is nothing but dots is
/// encoded too: what stands in front of Kong might go up the path.
fn encoded(name: &str) -> String {
    let dots_only = name.bytes().all(|byte| byte == b'.');
    name.bytes().fold(String::with_capacity(name.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'.' if !dots_only => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment() {
        for (name, segment) in [
            ("alice-1_2~3.example", "alice-1_2~3.example"),
            ("a/b?c#d&e=f+g h%2F", "a%2Fb%3Fc%23d%26e%3Df%2Bg%20h%252F"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("../x", "..%2Fx"),
            ("ü\n", "%C3%BC%0A"),
        ] {
            assert_eq!(encoded(name), segment);
        }
    }
}
