//! This knows the CRLs that certificates name: fetched, remembered, and fetched again before their time is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use moka::ops::compute::Op;
use tokio::time::Instant;

use super::flights::{Flight, Flights};
use super::life::{self, Life};
use super::outside::Outside;
use super::{Pace, Terms};
use crate::crl::Crl;
use crate::fetch::{Query, Settings};
use crate::{CLOCK_SKEW, Issuer, Trouble};

/// What a remembered CRL takes beside itself, in bytes.
const OVERHEAD: usize = 512;

/// A CRL that nobody has needed for so long is no longer fetched again by itself.
const IN_USE: Duration = Duration::from_secs(24 * 3600);

/// CRLs, by where they are and who has to have signed them.
#[derive(Debug)]
pub(super) struct Crls {
    outside: Arc<Outside>,
    held: moka::sync::Cache<Key, Arc<Held>>,
    /// What one instance sets makes no other's fail: two with different settings fly apart, and share what they bring.
    flights: Flights<(Key, Arc<Settings>), Result<Arc<Held>, Trouble>>,
    /// For how long after its time a CRL counts for want of a newer one.
    max_stale: Duration,
    memory: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    issuer: [u8; 32],
    url: Arc<str>,
}

/// A CRL that was verified.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) crl: Arc<Crl>,
    fetched: SystemTime,
    issuer: Arc<Issuer>,
    pace: Pace,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When somebody needed it last, and on which terms.
    used: SystemTime,
    terms: Terms,
    /// With these settings, no newer one could be had when it was tried last.
    failing: Option<Arc<Settings>>,
}

impl Held {
    fn life(&self, terms: &Terms, now: SystemTime) -> Life {
        life::of_crl(self.crl.next_update(), self.fetched, terms.ttl, now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many are remembered, and how large they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) crls: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Crls {
    pub(super) fn new(outside: Arc<Outside>, memory: u64, max_stale: Duration) -> Self {
        let weigh = |key: &Key, held: &Arc<Held>| {
            u32::try_from(OVERHEAD + key.url.len() + held.crl.size()).unwrap_or(u32::MAX)
        };
        let held = moka::sync::Cache::builder()
            .max_capacity(memory)
            .weigher(weigh)
            // The least recently used one goes: one that is not used often may still be the only one of its CA.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Self { outside, held, flights: Flights::default(), max_stale, memory }
    }

    pub(super) fn size(&self) -> Size {
        self.held.iter().fold(Size::default(), |size, (_, held)| Size {
            crls: size.crls + 1,
            entries: size.entries + held.crl.entries() as u64,
            bytes: size.bytes + held.crl.size() as u64,
        })
    }

    /// The cache lets go of what is too much a little later.
    #[cfg(test)]
    pub(super) fn run_pending(&self) {
        self.held.run_pending_tasks();
    }

    /// What is remembered of a place, if it counts without asking for a newer one.
    pub(super) fn remembered(&self, url: &str, issuer: &Issuer, terms: &Terms) -> Option<Arc<Held>> {
        let held = self.held.get(&Key { issuer: issuer.digest, url: url.into() })?;
        (held.life(terms, self.outside.now()) != Life::Over).then_some(held)
    }

    /// The CRL at a place: what is remembered, or what can be had until the deadline.
    ///
    /// # Errors
    /// There is none, or none that counts, and why.
    pub(super) async fn find(
        self: &Arc<Self>,
        url: &str,
        issuer: &Arc<Issuer>,
        terms: &Terms,
        deadline: Instant,
    ) -> Result<Arc<Held>, Trouble> {
        let key = Key { issuer: issuer.digest, url: url.into() };
        let now = self.outside.now();
        if let Some(held) = self.held.get(&key) {
            let is_failing = {
                let mut state = held.state();
                (state.used, state.terms) = (now, terms.clone());
                state.failing.as_ref() == Some(&terms.settings)
            };
            let counts = match held.life(terms, now) {
                Life::Young => return Ok(held),
                Life::Ageing => true,
                // Once it is known that there is no newer one, not every request waits to hear it again.
                Life::Over => is_failing && self.may_outlive(&held, now),
            };
            if counts {
                if held.pace.may_try() {
                    drop(self.begin(key, issuer, terms));
                }
                return Ok(held);
            }
        }
        let landed = self.begin(key.clone(), issuer, terms).land(deadline).await;
        let trouble = match landed {
            Ok(Ok(held)) => return Ok(held),
            Ok(Err(trouble)) => trouble,
            Err(lost) => lost.trouble(),
        };
        let held = self.held.get(&key).filter(|held| self.may_outlive(held, self.outside.now()));
        held.ok_or(trouble)
    }

    fn may_outlive(&self, held: &Held, now: SystemTime) -> bool {
        life::may_outlive(held.crl.next_update(), self.max_stale, now)
    }

    /// Fetches those again that are in use and whose time is running out, whether or not a request asks just now.
    pub(super) fn sweep(self: &Arc<Self>) {
        let now = self.outside.now();
        for (key, held) in &self.held {
            let (used, terms) = {
                let state = held.state();
                (state.used, state.terms.clone())
            };
            let in_use = now.duration_since(used).unwrap_or_default() < IN_USE;
            if in_use && held.life(&terms, now) != Life::Young && held.pace.may_try() {
                drop(self.begin(Key::clone(&key), &held.issuer, &terms));
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        key: Key,
        issuer: &Arc<Issuer>,
        terms: &Terms,
    ) -> Flight<Result<Arc<Held>, Trouble>> {
        self.flights.join((key.clone(), Arc::clone(&terms.settings)), || {
            let (crls, issuer, terms) = (Arc::clone(self), Arc::clone(issuer), terms.clone());
            async move { crls.fly(key, issuer, terms).await }
        })
    }

    async fn fly(&self, key: Key, issuer: Arc<Issuer>, terms: Terms) -> Result<Arc<Held>, Trouble> {
        let max_bytes = usize::try_from(self.largest()).unwrap_or(usize::MAX);
        let query = Query { url: &key.url, post: None, max_bytes };
        let read = async |bytes: Bytes| self.read(bytes, &issuer).await;
        let fetched = self.outside.fetch(query, &terms.settings, read).await;
        match fetched {
            Ok(crl) => Ok(self.keep(key, crl, issuer, &terms)),
            Err(trouble) => {
                let (url, code) = (&*key.url, trouble.code());
                match trouble {
                    // What came before it has been told.
                    Trouble::LeftAlone(_) => tracing::debug!(url, code, %trouble, "a CRL cannot be had"),
                    _ => tracing::warn!(url, code, %trouble, "a CRL cannot be had"),
                }
                if let Some(held) = self.held.get(&key) {
                    held.state().failing = Some(Arc::clone(&terms.settings));
                }
                Err(trouble)
            }
        }
    }

    /// Reads a CRL where it keeps nobody waiting: a large one takes its time.
    async fn read(&self, bytes: Bytes, issuer: &Arc<Issuer>) -> Result<Crl, Trouble> {
        let issuer = Arc::clone(issuer);
        let crl = read_apart(move || Crl::read(&bytes, &issuer)).await?;
        let now = self.outside.now();
        // It must not take the place of one whose time it is.
        if crl.this_update() > now + CLOCK_SKEW {
            return Err(Trouble::FromTheFuture);
        }
        if crl.next_update().is_some() && !life::may_outlive(crl.next_update(), self.max_stale, now) {
            return Err(Trouble::Stale);
        }
        // Whoever wants it would have it fetched again and again.
        if crl.size() as u64 > self.largest() {
            return Err(Trouble::TooLong(usize::try_from(self.largest()).unwrap_or(usize::MAX)));
        }
        Ok(crl)
    }

    /// How many bytes one CRL may have, as it comes and as it is remembered.
    fn largest(&self) -> u64 {
        self.memory / 2
    }

    /// Remembers a CRL, and gives the one that counts: an older one does not take the place of a newer one, for somebody may
    /// show it again to undo a revocation.
    fn keep(&self, key: Key, crl: Crl, issuer: Arc<Issuer>, terms: &Terms) -> Arc<Held> {
        let now = self.outside.now();
        let hold = |crl: Arc<Crl>, used| {
            let is_over = crl.next_update().is_some_and(|next| next <= now);
            let failing = is_over.then(|| Arc::clone(&terms.settings));
            let state = Mutex::new(State { used, terms: terms.clone(), failing });
            Arc::new(Held { crl, fetched: now, issuer, pace: Pace::default(), state })
        };
        let mut held = None;
        self.held.entry(key).and_compute_with(|old| {
            let old = old.map(moka::Entry::into_value);
            let new = Arc::new(crl);
            let newest = match &old {
                Some(old) if old.crl.this_update() > new.this_update() => Arc::clone(&old.crl),
                _ => new,
            };
            let put = hold(newest, old.map_or(now, |old| old.state().used));
            held = Some(Arc::clone(&put));
            Op::Put(put)
        });
        held.expect("the closure was called, which the cache does before it returns")
    }
}

/// Runs what takes a while on a thread of its own.
pub(super) async fn read_apart<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| Err(Trouble::Malformed("reading it ended in a fault of ours".to_owned())))
}
