//! This knows answers to look-ups that cost something: how long each counts, and that nothing is asked twice at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a failure stands for an answer. It keeps a source that is down from being asked for every request, and is
/// short, for every request that it answers is refused.
pub const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// A bounded memory of answers by key.
///
/// - An answer counts for a caller while it is younger than the caller's own limit, counted from when it was asked for:
///   two callers may have different limits. Beyond it the answer is gone, whether or not a new one can be had.
/// - Many callers that miss the same key make one look-up, which goes on when the caller that began it goes away.
/// - That a look-up failed is remembered for [`FAILURE_PAUSE`].
pub struct Lookups<K, V, E> {
    shared: Arc<Shared<K, V, E>>,
}

struct Shared<K, V, E> {
    /// A cache that resists floods: many new keys do not drive out those that are asked for often.
    remembered: moka::sync::Cache<K, Remembered<V, E>>,
    /// Apart from what is remembered, for the cache may decline a key and two look-ups would run.
    running: Mutex<HashMap<K, Flight<V, E>>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How often what was wanted was remembered, and how often not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// It was.
    pub hits: u64,
    /// It was not, and was looked up or waited for.
    pub misses: u64,
}

impl std::ops::Add for CacheCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, misses: self.misses + other.misses }
    }
}

/// Where a look-up that runs will put its result.
type Flight<V, E> = watch::Receiver<Option<Result<V, E>>>;

#[derive(Clone)]
struct Remembered<V, E> {
    answer: Option<(V, Instant)>,
    /// Beside the answer, which may still be young enough for another caller.
    failure: Option<(E, Instant)>,
}

impl<K, V, E> Lookups<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + PartialEq + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// An empty memory for so many keys.
    pub fn new(capacity: u64) -> Self {
        let shared = Shared {
            remembered: moka::sync::Cache::new(capacity),
            running: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What is remembered: an answer younger than `max_age`, or else a failure of a moment ago. Counts as a hit or a miss.
    pub fn get(&self, key: &K, max_age: Duration) -> Option<Result<V, E>> {
        let found = self.shared.get(key, max_age);
        let count = if found.is_some() { &self.shared.hits } else { &self.shared.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// As [`Self::get`], for who asks a second time for the same: it counts no more.
    pub fn get_again(&self, key: &K, max_age: Duration) -> Option<Result<V, E>> {
        self.shared.get(key, max_age)
    }

    /// The hits and misses so far.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.shared.hits.load(Ordering::Relaxed),
            misses: self.shared.misses.load(Ordering::Relaxed),
        }
    }

    /// Remembers what was found elsewhere, asked for at `since`, and gives it: or the answer of before where it is equal,
    /// so that who holds an `Arc` of it sees that nothing has changed.
    pub fn insert(&self, key: K, found: Result<V, E>, since: Instant) -> Result<V, E> {
        self.shared.insert(key, found, since)
    }

    /// What is remembered, or else what `look_up` finds: or what a look-up finds that runs already.
    ///
    /// # Errors
    /// That of the look-up. `broken_off` where it panics.
    pub async fn get_or_look_up<F>(
        &self,
        key: K,
        max_age: Duration,
        broken_off: impl FnOnce() -> E,
        look_up: F,
    ) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        if let Some(found) = self.get(&key, max_age) {
            return found;
        }
        let mut flight = {
            let mut running = self.shared.running();
            // It may have landed since.
            if let Some(found) = self.get_again(&key, max_age) {
                return found;
            }
            match running.entry(key) {
                Entry::Occupied(flight) => flight.get().clone(),
                Entry::Vacant(place) => {
                    let (sender, flight) = watch::channel(None);
                    let landing =
                        Landing { shared: Arc::clone(&self.shared), key: Some(place.key().clone()) };
                    place.insert(flight.clone());
                    // A task of its own: requests are given up by their deadlines, and others wait for this.
                    tokio::spawn(landing.after(look_up, sender));
                    flight
                }
            }
        };
        let landed = flight.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        landed.unwrap_or_else(|| Err(broken_off()))
    }
}

impl<K, V, E> Shared<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + PartialEq + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    fn get(&self, key: &K, max_age: Duration) -> Option<Result<V, E>> {
        let Remembered { answer, failure } = self.remembered.get(key)?;
        match (answer, failure) {
            (Some((value, since)), _) if since.elapsed() < max_age => Some(Ok(value)),
            (_, Some((error, since))) if since.elapsed() < FAILURE_PAUSE => Some(Err(error)),
            _ => None,
        }
    }

    /// Gives what was found, or the equal answer that was remembered before.
    fn insert(&self, key: K, found: Result<V, E>, since: Instant) -> Result<V, E> {
        let before = self.remembered.get(&key).and_then(|remembered| remembered.answer);
        let (found, remembered) = match found {
            Ok(value) => {
                let same = before.map(|(before, _)| before).filter(|before| *before == value);
                let value = same.unwrap_or(value);
                (Ok(value.clone()), Remembered { answer: Some((value, since)), failure: None })
            }
            // The pause begins now: a look-up may fail by taking longer than it.
            Err(error) => {
                let failure = Some((error.clone(), Instant::now()));
                (Err(error), Remembered { answer: before, failure })
            }
        };
        self.remembered.insert(key, remembered);
        found
    }
}

impl<K, V, E> Shared<K, V, E> {
    fn running(&self) -> MutexGuard<'_, HashMap<K, Flight<V, E>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a look-up off the list of those that run, also when it panics: nobody could ever ask for its key again.
struct Landing<K: Eq + Hash, V, E> {
    shared: Arc<Shared<K, V, E>>,
    key: Option<K>,
}

impl<K, V, E> Landing<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + PartialEq + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    async fn after<F>(mut self, look_up: F, sender: watch::Sender<Option<Result<V, E>>>)
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        // Not when it ends: what changes at Kong while the answer is on its way is not in it.
        let since = Instant::now();
        let mut found = look_up.await;
        if let Some(key) = self.key.take() {
            // Under the lock: between the two, somebody would ask again.
            let mut running = self.shared.running();
            found = self.shared.insert(key.clone(), found, since);
            running.remove(&key);
        }
        sender.send_replace(Some(found));
    }
}

impl<K: Eq + Hash, V, E> Drop for Landing<K, V, E> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.shared.running().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
