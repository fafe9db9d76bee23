//! This knows the plugin instances: one for each configuration in each of Kong's workers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use client_cert::{Presented, ProofKey, field};
use kong_entities::{Entities, Watched};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::details;
use crate::ids;
use crate::mapping::Mappings;
use crate::pdk::Pdk;
use crate::reason::{Reason, Refusal};
use crate::source::Source;
use crate::trust::Trust;
use crate::verify::{self, Verified};

/// How long an instance may go unused. Kong does not say when a plugin is removed or a worker leaves; one that is
/// wanted again is started again, at the cost of two calls.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);

/// How many verified certificates are remembered, over all instances: a few kilobytes each.
const VERIFIED_CERTIFICATES: u64 = 10_000;

/// How many addresses an instance remembers whether Kong trusts them.
const PEERS: u64 = 1_000;

/// What all instances share.
pub(crate) struct Shared {
    /// None without a declarative file.
    pub(crate) entities: Option<Watched>,
    pub(crate) proof_key: ProofKey,
    verified: moka::sync::Cache<[u8; 32], Arc<Verified>>,
}

impl Shared {
    pub(crate) fn new(entities: Option<Watched>, proof_key: ProofKey) -> Self {
        Self { entities, proof_key, verified: moka::sync::Cache::new(VERIFIED_CERTIFICATES) }
    }

    fn entities(&self) -> Arc<Entities> {
        self.entities.as_ref().map(|watched| Arc::clone(&watched.borrow())).unwrap_or_default()
    }
}

/// One configuration of the plugin, with what follows from it.
pub(crate) struct Instance {
    pub(crate) config: Config,
    pub(crate) mappings: Mappings,
    pub(crate) source: Source,
    /// The headers, folded, that this instance guards besides those that all guard: nobody may set them but us, and
    /// what carries the certificate to Kong does not go on to the upstream.
    pub(crate) own_headers: Vec<String>,
    /// Whether Kong trusts the addresses that requests came from. Kong's `trusted_ips` change only with new workers,
    /// which start instances of their own.
    peers: moka::sync::Cache<String, bool>,
    shared: Arc<Shared>,
    resolved: Mutex<Resolved>,
    used: Mutex<Instant>,
}

/// The CAs, and the entities that they were found in: others, and they are looked for again.
struct Resolved {
    entities: Arc<Entities>,
    trust: Result<Arc<Trust>, String>,
}

impl Instance {
    /// Starts an instance.
    ///
    /// # Errors
    /// The field that is wrong and why. Kong then answers 500 wherever the plugin applies.
    fn start(config: &str, shared: Arc<Shared>) -> Result<Self, String> {
        let config = Config::from_json(config)?;
        if shared.entities.is_none() && config.needs_consumers() {
            return Err("consumers cannot be looked up without --declarative-config; \
                        skip_consumer_lookup needs none"
                .into());
        }
        let mappings = Mappings::new(&config.credentials)?;
        let entities = shared.entities();
        let trust = resolve(&config, &shared, &entities)?;
        let source = config.source()?;
        let carrier = match &source {
            Source::Header { name, .. } => Some(name.as_str()),
            Source::Shim | Source::Tls => None,
        };
        Ok(Self {
            own_headers: details::names(&config).chain(carrier).map(field::folded).collect(),
            source,
            peers: moka::sync::Cache::new(PEERS),
            config,
            mappings,
            shared,
            resolved: Mutex::new(Resolved { entities, trust: Ok(trust) }),
            used: Mutex::new(Instant::now()),
        })
    }

    /// Kong's entities as they are now.
    pub(crate) fn entities(&self) -> Arc<Entities> {
        self.shared.entities()
    }

    /// Whether the request came from an address that Kong trusts. One call, and a second one for a new address.
    ///
    /// # Errors
    /// It did not, or nobody knows where it came from.
    pub(crate) async fn check_peer(&self, pdk: &mut impl Pdk) -> Result<(), Refusal> {
        let Some(address) = pdk.client_ip().await else { return Err(Reason::UntrustedSource.into()) };
        let is_trusted = match self.peers.get(&address) {
            Some(known) => known,
            None => {
                let is_trusted = pdk.is_trusted_ip(&address).await;
                self.peers.insert(address.clone(), is_trusted);
                is_trusted
            }
        };
        if is_trusted { Ok(()) } else { Err(Refusal::with(Reason::UntrustedSource, address)) }
    }

    /// The key that proofs are made with.
    pub(crate) fn proof_key(&self) -> &ProofKey {
        &self.shared.proof_key
    }

    /// Verifies what a client presented, or remembers having done so: for the same certificates under the same CAs, no
    /// longer than each certificate of the chain is valid.
    pub(crate) fn verify(
        &self,
        trust: &Trust,
        presented: &Presented,
        now: SystemTime,
    ) -> Result<Arc<Verified>, Refusal> {
        let key = verify::cache_key(trust, presented);
        if let Some(verified) = self.shared.verified.get(&key).filter(|verified| verified.is_valid_at(now)) {
            return Ok(verified);
        }
        let certificate = Certificate::from_der(&presented.leaf).ok_or(Reason::Malformed)?;
        let verified = Arc::new(verify::verify(trust, presented, certificate, now)?);
        self.shared.verified.insert(key, Arc::clone(&verified));
        Ok(verified)
    }

    /// The CAs as they are now.
    ///
    /// # Errors
    /// One of them is gone or broken.
    pub(crate) fn trust(&self, entities: &Arc<Entities>) -> Result<Arc<Trust>, Refusal> {
        let mut resolved = self.resolved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !Arc::ptr_eq(&resolved.entities, entities) {
            let trust = resolve(&self.config, &self.shared, entities);
            *resolved = Resolved { entities: Arc::clone(entities), trust };
        }
        resolved.trust.clone().map_err(|problem| Refusal::with(Reason::CaUnavailable, problem))
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn idle_since(&self) -> Instant {
        *self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn resolve(config: &Config, shared: &Shared, entities: &Entities) -> Result<Arc<Trust>, String> {
    Trust::resolve(config, shared.entities.is_some().then_some(entities)).map(Arc::new)
}

/// A configuration that could not be started, and is tried again where it is needed.
struct Unstarted {
    config: String,
    used: Instant,
}

/// The running instances by id.
pub(crate) struct Instances {
    shared: Arc<Shared>,
    running: RwLock<HashMap<u64, Arc<Instance>>>,
    unstarted: Mutex<HashMap<u64, Unstarted>>,
    next_id: AtomicU64,
    last_int32_id: Mutex<u32>,
}

impl Instances {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            running: RwLock::default(),
            unstarted: Mutex::default(),
            next_id: AtomicU64::new(ids::first()),
            last_int32_id: Mutex::new(ids::first_int32()),
        }
    }

    /// Starts an instance and gives its id.
    ///
    /// # Errors
    /// See [`Instance::start`].
    pub(crate) fn start(&self, config: &str) -> Result<u64, String> {
        let instance = Arc::new(Instance::start(config, Arc::clone(&self.shared))?);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.write().insert(id, instance);
        Ok(id)
    }

    /// Gives a configuration an id that fits an int32, and starts it. One that cannot be started is tried again by
    /// [`Self::get_or_retry`]: ProtoBuf:1 has no way to tell Kong why it cannot, but an event has.
    pub(crate) fn start_or_keep(&self, config: &str) -> (i32, Result<(), String>) {
        let started = Instance::start(config, Arc::clone(&self.shared));
        let id = self.vacant_int32_id();
        let key = u64::from(id.unsigned_abs());
        match started {
            Ok(instance) => {
                self.write().insert(key, Arc::new(instance));
                (id, Ok(()))
            }
            Err(problem) => {
                let unstarted = Unstarted { config: config.to_owned(), used: Instant::now() };
                self.unstarted().insert(key, unstarted);
                (id, Err(problem))
            }
        }
    }

    /// An id that came around must not meet an instance that still runs.
    fn vacant_int32_id(&self) -> i32 {
        let mut id = self.last_int32_id.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            *id = ids::next_int32(*id);
            if !self.is_known(u64::from(*id)) {
                return id.cast_signed();
            }
        }
    }

    /// Whether there is such an instance, running or not yet.
    pub(crate) fn is_known(&self, id: u64) -> bool {
        self.read().contains_key(&id) || self.unstarted().contains_key(&id)
    }

    /// A running instance as [`Self::get`] gives it. One that could not be started is tried again. None if there is
    /// no such instance.
    ///
    /// # Errors
    /// See [`Instance::start`].
    pub(crate) fn get_or_retry(&self, id: u64) -> Option<Result<Arc<Instance>, String>> {
        if let Some(instance) = self.get(id) {
            return Some(Ok(instance));
        }
        let config = {
            let mut unstarted = self.unstarted();
            let unstarted = unstarted.get_mut(&id)?;
            unstarted.used = Instant::now();
            unstarted.config.clone()
        };
        let started = Instance::start(&config, Arc::clone(&self.shared)).map(Arc::new);
        if let Ok(instance) = &started {
            self.write().insert(id, Arc::clone(instance));
            self.unstarted().remove(&id);
        }
        Some(started)
    }

    /// A running instance, which counts as used from now on.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Instance>> {
        let running = self.read();
        let instance = running.get(&id)?;
        instance.touch();
        Some(Arc::clone(instance))
    }

    /// Whether there was such an instance.
    pub(crate) fn close(&self, id: u64) -> bool {
        let unstarted = self.unstarted().remove(&id).is_some();
        self.write().remove(&id).is_some() || unstarted
    }

    /// Ends the instances that nobody has used for [`IDLE`].
    pub(crate) fn expire(&self, now: Instant) {
        self.write().retain(|_, instance| now.saturating_duration_since(instance.idle_since()) < IDLE);
        self.unstarted().retain(|_, unstarted| now.saturating_duration_since(unstarted.used) < IDLE);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<u64, Arc<Instance>>> {
        self.running.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn unstarted(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Unstarted>> {
        self.unstarted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u64, Arc<Instance>>> {
        self.running.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_come_around_meet_no_instance_that_is_there() {
        let instances = Instances::new(Arc::new(Shared::new(None, ProofKey::from_bytes([9; 32]))));
        *instances.last_int32_id.lock().unwrap() = ids::MAX_INT32 - 1;
        let start = || {
            let (id, started) = instances.start_or_keep("no configuration");
            assert!(started.is_err());
            id
        };
        assert_eq!([start(), start(), start()], [i32::MAX, 1, 2]);
        *instances.last_int32_id.lock().unwrap() = ids::MAX_INT32 - 2;
        assert_eq!([start(), start()], [i32::MAX - 1, 3]);
        // Kept as long as a running one, from when it was last wanted.
        let before = Instant::now();
        assert!(instances.get_or_retry(3).unwrap().is_err());
        assert!(instances.unstarted()[&3].used >= before);
        instances.expire(Instant::now() + IDLE / 2);
        assert!(instances.is_known(3));
        instances.expire(Instant::now() + IDLE);
        assert!(!instances.is_known(3));
    }
}
