//! This knows where the access phase looks up Kong's entities: one place, whatever they come from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lookups::{CacheCounts, Lookups};
use crate::{AdminClient, CaCertificate, Consumer, Entities, Followed, Mapping, SourceError, SourceFault};
use crate::{admin, applied_plugins, ids};

/// How many consumers, found or not, are remembered.
const CONSUMERS: u64 = 10_000;

/// How many CA certificates, found or not, are remembered.
const CA_CERTIFICATES: u64 = 1_000;

/// By what a consumer is looked up. All but an id count as they are, in their case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerKey {
    /// Its id, in any case.
    Id(String),
    /// Its username.
    Username(String),
    /// Its custom id.
    CustomId(String),
    /// Its id or else its username, as `anonymous` and `default_consumer` name one.
    IdOrUsername(String),
}

/// Where entities are looked up. There is one source, not several with an order among them: where two disagree about
/// who somebody is, neither order is right.
pub enum Directory {
    /// A declarative file that is watched. It answers at once, from the version that was read last.
    Declarative(Followed),
    /// The Admin API. Its answers, also that there is no such entity, are remembered.
    Admin(Box<RememberedAdmin>),
}

/// The Admin API, with what it has answered.
pub struct RememberedAdmin {
    client: Arc<AdminClient>,
    /// That Kong's Admin API was there once. Until then nothing is believed: under a wrong path Kong answers to every
    /// question that there is no such entity, and everybody would be nobody.
    checked: Answers<(), ()>,
    ca_certificates: Answers<String, Option<Arc<CaCertificate>>>,
    consumers: Answers<ConsumerKey, Option<Arc<Consumer>>>,
    /// The only usernames that Kong does not find by themselves: all together, so that one walk through all consumers
    /// serves every one of them.
    id_like_usernames: Answers<(), Arc<HashMap<String, Arc<Consumer>>>>,
    asked: Arc<Asked>,
}

/// How the Admin API has answered.
#[derive(Default)]
struct Asked(Mutex<AskedSoFar>);

#[derive(Default)]
struct AskedSoFar {
    answered: Option<Instant>,
    failures: u64,
}

/// How the source of a directory fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceHealth {
    /// The time since it was last known that the source is there: a declarative file is looked at all the time, an Admin
    /// API is asked only what somebody wants to know. None: it has never answered.
    pub age: Option<Duration>,
    /// How often it could not be read, or did not answer as it should.
    pub failures: u64,
    /// What was remembered of its answers: nothing of a declarative file, which is known as a whole.
    pub cache: CacheCounts,
}

type Answers<K, V> = Lookups<K, V, SourceError>;

impl Directory {
    /// Looks up in a declarative file.
    pub fn declarative(file: impl Into<Followed>) -> Self {
        Self::Declarative(file.into())
    }

    /// Looks up at the Admin API.
    pub fn admin(client: AdminClient) -> Self {
        Self::Admin(Box::new(RememberedAdmin {
            client: Arc::new(client),
            checked: Lookups::new(1),
            ca_certificates: Lookups::new(CA_CERTIFICATES),
            consumers: Lookups::new(CONSUMERS),
            id_like_usernames: Lookups::new(1),
            asked: Arc::default(),
        }))
    }

    /// How the source fares.
    pub fn health(&self) -> SourceHealth {
        match self {
            Self::Declarative(file) => {
                let status = file.status.borrow();
                SourceHealth { age: status.age(), failures: status.failures, cache: CacheCounts::default() }
            }
            Self::Admin(admin) => {
                let asked = admin.asked.so_far();
                SourceHealth {
                    age: asked.answered.map(|answered| answered.elapsed()),
                    failures: asked.failures,
                    cache: admin.ca_certificates.counts()
                        + admin.consumers.counts()
                        + admin.id_like_usernames.counts(),
                }
            }
        }
    }

    /// The CA certificate with this id. While it does not change, the same `Arc` is given.
    ///
    /// What is older than `max_age` does not count. A declarative file has no age.
    ///
    /// # Errors
    /// The source did not answer, and nothing young enough is remembered.
    pub async fn ca_certificate(
        &self,
        id: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<CaCertificate>>, SourceError> {
        match self {
            Self::Declarative(file) => {
                Ok(file.entities.borrow().ca_certificates.get(&id.to_ascii_lowercase()).cloned())
            }
            Self::Admin(admin) => admin.ca_certificate(id, max_age).await,
        }
    }

    /// A consumer. While it does not change, the same `Arc` is given.
    ///
    /// What is older than `max_age` does not count. A declarative file has no age.
    ///
    /// # Errors
    /// The source did not answer, and nothing young enough is remembered.
    pub async fn consumer(
        &self,
        key: ConsumerKey,
        max_age: Duration,
    ) -> Result<Option<Arc<Consumer>>, SourceError> {
        match self {
            Self::Declarative(file) => Ok(find(&file.entities.borrow(), &key).cloned()),
            Self::Admin(admin) => admin.consumer(key, max_age).await,
        }
    }

    /// Whether the source can be asked. A declarative file always can.
    ///
    /// # Errors
    /// Those of [`AdminClient::check`], until it has succeeded once.
    pub async fn check(&self) -> Result<(), SourceError> {
        match self {
            Self::Declarative(_) => Ok(()),
            Self::Admin(admin) => admin.check().await,
        }
    }

    /// Services, routes and plugins, with at least the configurations of these plugins. From the Admin API all is read anew,
    /// and nothing besides.
    ///
    /// # Errors
    /// Those of [`applied_plugins`].
    pub async fn applied_plugins(&self, plugins: &[&str]) -> Result<Arc<Entities>, SourceError> {
        match self {
            Self::Declarative(entities) => Ok(entities.entities.borrow().clone()),
            Self::Admin(admin) => applied_plugins(&admin.client, plugins).await.map(Arc::new),
        }
    }

    /// The manual mappings for exactly this subject name. Open-source Kong has none to ask its Admin API for.
    pub fn mappings(&self, subject_name: &str) -> Vec<Mapping> {
        match self {
            Self::Declarative(file) => file.entities.borrow().mappings(subject_name).to_vec(),
            Self::Admin(_) => Vec::new(),
        }
    }
}

fn find<'a>(entities: &'a Entities, key: &ConsumerKey) -> Option<&'a Arc<Consumer>> {
    match key {
        ConsumerKey::Id(id) => entities.consumer_by_id(id),
        ConsumerKey::Username(username) => entities.consumer_by_username(username),
        ConsumerKey::CustomId(custom_id) => entities.consumer_by_custom_id(custom_id),
        ConsumerKey::IdOrUsername(name) => entities.consumer_by_id_or_username(name),
    }
}

impl Asked {
    /// The same question, whose answer is taken note of.
    fn noting<T, F>(self: &Arc<Self>, question: F) -> impl Future<Output = Result<T, SourceError>> + use<T, F>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let asked = Arc::clone(self);
        async move {
            let answer = question.await;
            let mut so_far = asked.so_far();
            match &answer {
                Ok(_) => so_far.answered = Some(Instant::now()),
                Err(_) => so_far.failures += 1,
            }
            answer
        }
    }

    fn so_far(&self) -> std::sync::MutexGuard<'_, AskedSoFar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RememberedAdmin {
    async fn check(&self) -> Result<(), SourceError> {
        let client = Arc::clone(&self.client);
        let look_up = self.asked.noting(async move { client.check().await });
        self.checked.get_or_look_up((), Duration::MAX, || broken_off("all consumers".into()), look_up).await
    }

    async fn ca_certificate(
        &self,
        id: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<CaCertificate>>, SourceError> {
        if !ids::is_id(id) {
            return Ok(None);
        }
        self.check().await?;
        let client = Arc::clone(&self.client);
        let asked = id.to_owned();
        let look_up = self.asked.noting(async move { client.ca_certificate(&asked).await });
        let broken_off = || broken_off(format!("CA certificate {id:?}"));
        self.ca_certificates.get_or_look_up(id.to_owned(), max_age, broken_off, look_up).await
    }

    async fn consumer(
        &self,
        key: ConsumerKey,
        max_age: Duration,
    ) -> Result<Option<Arc<Consumer>>, SourceError> {
        self.check().await?;
        match key {
            ConsumerKey::Username(name) | ConsumerKey::IdOrUsername(name) if !ids::is_id(&name) => {
                self.consumer_by(ConsumerKey::Username(name), max_age).await
            }
            ConsumerKey::Username(name) => self.consumer_by_id_like_username(&name, max_age).await,
            ConsumerKey::IdOrUsername(name) => {
                match self.consumer_by(ConsumerKey::Id(name.clone()), max_age).await? {
                    Some(consumer) => Ok(Some(consumer)),
                    None => self.consumer_by_id_like_username(&name, max_age).await,
                }
            }
            key => self.consumer_by(key, max_age).await,
        }
    }

    async fn consumer_by_id_like_username(
        &self,
        username: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<Consumer>>, SourceError> {
        let client = Arc::clone(&self.client);
        let look_up =
            self.asked.noting(async move { client.consumers_by_id_like_username().await.map(Arc::new) });
        let broken_off = || broken_off("all consumers".into());
        let all = self.id_like_usernames.get_or_look_up((), max_age, broken_off, look_up).await?;
        Ok(all.get(username).cloned())
    }

    async fn consumer_by(
        &self,
        key: ConsumerKey,
        max_age: Duration,
    ) -> Result<Option<Arc<Consumer>>, SourceError> {
        // What nobody can be called by takes no place in the memory either: a certificate may hold very long names.
        if !can_be_asked(&key) {
            return Ok(None);
        }
        let client = Arc::clone(&self.client);
        let asked = key.clone();
        let look_up = self.asked.noting(async move {
            match asked {
                ConsumerKey::Id(id) => client.consumer_by_id(&id).await,
                ConsumerKey::Username(username) => client.consumer_by_username(&username).await,
                ConsumerKey::CustomId(custom_id) => client.consumer_by_custom_id(&custom_id).await,
                ConsumerKey::IdOrUsername(name) => client.consumer_by_id_or_username(&name).await,
            }
        });
        let broken_off = || broken_off(format!("consumer {key:?}"));
        self.consumers.get_or_look_up(key.clone(), max_age, broken_off, look_up).await
    }
}

fn can_be_asked(key: &ConsumerKey) -> bool {
    match key {
        ConsumerKey::Id(id) => ids::is_id(id),
        ConsumerKey::Username(name) | ConsumerKey::CustomId(name) | ConsumerKey::IdOrUsername(name) => {
            admin::can_be_asked(name)
        }
    }
}

fn broken_off(what: String) -> SourceError {
    SourceError { url: what, fault: SourceFault::BrokenOff }
}
