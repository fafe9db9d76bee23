//! This knows where the access phase looks up Kong's entities: one place, whatever they come from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::lookups::Lookups;
use crate::{AdminClient, CaCertificate, Consumer, Entities, Mapping, SourceError, SourceFault, Watched};
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
    Declarative(Watched),
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
}

type Answers<K, V> = Lookups<K, V, SourceError>;

impl Directory {
    /// Looks up in a declarative file.
    pub fn declarative(entities: Watched) -> Self {
        Self::Declarative(entities)
    }

    /// Looks up at the Admin API.
    pub fn admin(client: AdminClient) -> Self {
        Self::Admin(Box::new(RememberedAdmin {
            client: Arc::new(client),
            checked: Lookups::new(1),
            ca_certificates: Lookups::new(CA_CERTIFICATES),
            consumers: Lookups::new(CONSUMERS),
            id_like_usernames: Lookups::new(1),
        }))
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
            Self::Declarative(entities) => {
                Ok(entities.borrow().ca_certificates.get(&id.to_ascii_lowercase()).cloned())
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
            Self::Declarative(entities) => Ok(find(&entities.borrow(), &key).cloned()),
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
            Self::Declarative(entities) => Ok(entities.borrow().clone()),
            Self::Admin(admin) => applied_plugins(&admin.client, plugins).await.map(Arc::new),
        }
    }

    /// The manual mappings for exactly this subject name. Open-source Kong has none to ask its Admin API for.
    pub fn mappings(&self, subject_name: &str) -> Vec<Mapping> {
        match self {
            Self::Declarative(entities) => entities.borrow().mappings(subject_name).to_vec(),
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

impl RememberedAdmin {
    async fn check(&self) -> Result<(), SourceError> {
        let client = Arc::clone(&self.client);
        let look_up = async move { client.check().await };
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
        let look_up = async move { client.ca_certificate(&asked).await };
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
        let look_up = async move { client.consumers_by_id_like_username().await.map(Arc::new) };
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
        let look_up = async move {
            match asked {
                ConsumerKey::Id(id) => client.consumer_by_id(&id).await,
                ConsumerKey::Username(username) => client.consumer_by_username(&username).await,
                ConsumerKey::CustomId(custom_id) => client.consumer_by_custom_id(&custom_id).await,
                ConsumerKey::IdOrUsername(name) => client.consumer_by_id_or_username(&name).await,
            }
        };
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
