//! This knows how to find consumers by asking the very Kong whose request is being handled.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kong_entities::{Consumer, ConsumerKey, Lookups, SourceError, SourceHealth, can_be_asked};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::pdk::{Pdk, PdkFault};
use crate::reason::{Reason, Refusal};

/// How many consumers, found or not, are remembered.
const CONSUMERS: u64 = 10_000;

/// How many look-ups may run at a time, at most one for each consumer.
const TURNS: usize = 64;

/// How long a request waits for another one that asks for the same consumer, before it asks for itself: Kong may never
/// come back with the answer to the other.
const PATIENCE: Duration = Duration::from_secs(1);

/// Consumers as Kong's PDK finds them, by id or username.
pub(crate) struct KongConsumers {
    remembered: Lookups<ConsumerKey, Option<Arc<Consumer>>, SourceError>,
    /// By the hash of the key.
    turns: Vec<Mutex<()>>,
    /// The id of the consumer that Kong found last.
    found_last: std::sync::Mutex<Option<String>>,
    failures: AtomicU64,
}

impl KongConsumers {
    pub(crate) fn new() -> Self {
        Self {
            remembered: Lookups::new(CONSUMERS),
            turns: std::iter::repeat_with(Mutex::default).take(TURNS).collect(),
            found_last: std::sync::Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// How Kong fares as a source. It has no age: it is there whenever it asks us.
    pub(crate) fn health(&self) -> SourceHealth {
        let failures = self.failures.load(Ordering::Relaxed);
        SourceHealth { age: None, failures, cache: self.remembered.counts() }
    }

    /// A consumer, found within `max_age`.
    ///
    /// That there is none cannot be told from a database that does not answer: Kong says nothing in both cases. So Kong is
    /// asked for another one, too, the `fallback` or else whom it found last, and only if that one is found counts that the
    /// first was not.
    ///
    /// # Errors
    /// Kong did not find the other either, or answered what it never does.
    pub(crate) async fn find(
        &self,
        pdk: &mut impl Pdk,
        key: ConsumerKey,
        max_age: Duration,
        fallback: Option<&str>,
    ) -> Result<Option<Arc<Consumer>>, Refusal> {
        let Some(name) = name(&key).filter(|name| can_be_asked(name)).map(str::to_owned) else {
            return Ok(None);
        };
        if let Some(Ok(found)) = self.remembered.get(&key, max_age) {
            return Ok(found);
        }
        let _turn = self.turn(&key).await;
        if let Some(Ok(found)) = self.remembered.get_again(&key, max_age) {
            return Ok(found);
        }
        let asked = self.ask(pdk, key, &name, fallback).await;
        if asked.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        asked
    }

    async fn ask(
        &self,
        pdk: &mut impl Pdk,
        key: ConsumerKey,
        name: &str,
        fallback: Option<&str>,
    ) -> Result<Option<Arc<Consumer>>, Refusal> {
        let since = Instant::now();
        let found = ask(pdk, &key, name).await?;
        match &found {
            Some(consumer) => *self.found_last() = Some(consumer.id.clone()),
            None => {
                let witness = fallback.map(str::to_owned).or_else(|| self.found_last().clone());
                // With nobody to fall back on the request is refused either way; nothing is remembered that may not be
                // true.
                let Some(witness) = witness else { return Ok(None) };
                let known = ConsumerKey::IdOrUsername(witness.clone());
                let since = Instant::now();
                let Some(found) = ask(pdk, &known, &witness).await? else {
                    let problem = format_args!("Kong finds neither {name:?} nor {witness:?}");
                    return Err(Refusal::with(Reason::EntitySourceDown, problem));
                };
                // Who is fallen back on is wanted next.
                let _ = self.remembered.insert(known, Ok(Some(found)), since);
            }
        }
        Ok(self.remembered.insert(key, Ok(found.clone()), since).unwrap_or(found))
    }

    fn found_last(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.found_last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn turn(&self, key: &ConsumerKey) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let turn = &self.turns[hasher.finish() as usize % TURNS];
        tokio::time::timeout(PATIENCE, turn.lock()).await.ok()
    }
}

/// What Kong can look for.
fn name(key: &ConsumerKey) -> Option<&str> {
    match key {
        ConsumerKey::Id(name) | ConsumerKey::Username(name) | ConsumerKey::IdOrUsername(name) => Some(name),
        ConsumerKey::CustomId(_) => None,
    }
}

/// Kong looks for an id first and for a username then, whatever is meant: so what it gives is looked at.
async fn ask(pdk: &mut impl Pdk, key: &ConsumerKey, name: &str) -> Result<Option<Arc<Consumer>>, Refusal> {
    let Some(consumer) = pdk.load_consumer(name).await.map_err(|PdkFault| Reason::Internal)? else {
        return Ok(None);
    };
    let has_id = consumer.id.eq_ignore_ascii_case(name);
    let has_username = consumer.username.as_deref() == Some(name);
    let is_meant = match key {
        ConsumerKey::Id(_) => has_id,
        ConsumerKey::Username(_) => has_username,
        ConsumerKey::IdOrUsername(_) => has_id || has_username,
        ConsumerKey::CustomId(_) => false,
    };
    match (is_meant, has_id || has_username) {
        (true, _) => Ok(Some(Arc::new(consumer))),
        // Somebody else has the username for an id.
        (false, true) => Ok(None),
        (false, false) => {
            let problem = format_args!("asked for {name:?}, Kong gave another consumer");
            Err(Refusal::with(Reason::EntitySourceInvalid, problem))
        }
    }
}
