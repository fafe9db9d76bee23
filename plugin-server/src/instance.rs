//! This knows the plugin instances: one for each configuration in each of Kong's workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant, SystemTime};

use client_cert::{Presented, ProofKey, field};
use kong_entities::{CaCertificate, Consumer, ConsumerKey, is_pem};
use revocation::{Issuers, Terms};

use crate::certificate::Certificate;
use crate::config::{Config, RevocationMode};
use crate::details;
use crate::entity_source::EntitySource;
use crate::ids::{self, Ids, Run};
use crate::mapping::Mappings;
use crate::metrics::Metrics;
use crate::pdk::Pdk;
use crate::reason::{Reason, Refusal};
use crate::revocation::{self as check, Cleared, Revocation};
use crate::source::Source;
use crate::trust::Trust;
use crate::verify::{self, Verified};

/// How long an instance may go unused. Kong does not say when a plugin is removed or a worker leaves; one that is
/// wanted again is started again, at the cost of two calls.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);

/// How many verified certificates are remembered, over all instances, where nobody says otherwise.
pub(crate) const VERIFIED_CERTIFICATES: u32 = 10_000;

/// How many addresses an instance remembers whether Kong trusts them.
const PEERS: u64 = 1_000;

/// What all instances share.
pub(crate) struct Shared {
    pub(crate) entities: EntitySource,
    pub(crate) proof_key: ProofKey,
    /// How long an event, or the start of an instance, may take.
    pub(crate) time_limit: Duration,
    pub(crate) metrics: Metrics,
    /// Who is asked about the revocation of certificates.
    pub(crate) revocation: Revocation,
    verified: moka::sync::Cache<[u8; 32], Arc<Verified>>,
    issuers: Issuers,
}

impl Shared {
    pub(crate) fn new(
        entities: EntitySource,
        proof_key: ProofKey,
        revocation: Revocation,
        time_limit: Duration,
    ) -> Self {
        let verified = moka::sync::Cache::new(VERIFIED_CERTIFICATES.into());
        let issuers = Issuers::default();
        Self { entities, proof_key, time_limit, metrics: Metrics::new(), revocation, verified, issuers }
    }

    /// The same, with room for so many verified certificates.
    #[must_use]
    pub(crate) fn with_verified_certificates(self, most: u32) -> Self {
        Self { verified: moka::sync::Cache::new(most.into()), ..self }
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
    /// How it is asked about revocation, and for how long an answer counts.
    terms: Terms,
    /// Whether Kong trusts the addresses that requests came from. Kong's `trusted_ips` change only with new workers,
    /// which start instances of their own. Made when it is needed: few instances look, and it takes 30 KiB.
    peers: OnceLock<moka::sync::Cache<String, bool>>,
    shared: Arc<Shared>,
    resolved: Mutex<Option<Resolved>>,
    used: Mutex<Instant>,
}

/// The CAs, and the entities that they were read from: others, and they are read again.
struct Resolved {
    entities: Vec<Arc<CaCertificate>>,
    trust: Result<Arc<Trust>, String>,
}

impl Instance {
    /// Starts an instance. Where the source of the entities does not answer, it starts all the same, and each request finds
    /// out for itself.
    ///
    /// # Errors
    /// The field that is wrong and why. Kong then answers 500 wherever the plugin applies.
    async fn start(config: &str, shared: Arc<Shared>) -> Result<Self, String> {
        let config = Config::from_json(config)?;
        shared.entities.check(&config)?;
        let mappings = Mappings::new(&config.credentials)?;
        let source = config.source()?;
        let carrier = match &source {
            Source::Header { name, .. } => Some(name.as_str()),
            Source::Shim | Source::Tls => None,
        };
        let instance = Self {
            own_headers: details::names(&config).chain(carrier).map(field::folded).collect(),
            source,
            terms: Terms { settings: Arc::new(config.fetch_settings()?), ttl: config.cert_cache_ttl },
            peers: OnceLock::new(),
            config,
            mappings,
            shared,
            resolved: Mutex::default(),
            used: Mutex::new(Instant::now()),
        };
        match tokio::time::timeout(instance.time_limit(), instance.trust()).await {
            Ok(Err(refusal)) if refusal.reason == Reason::EntitySourceDown => {
                tracing::warn!(%refusal, "an instance starts without its CAs");
            }
            Ok(Err(refusal)) => return Err(refusal.to_string()),
            Err(_) => tracing::warn!("an instance starts without its CAs: they are not found in time"),
            Ok(Ok(_)) => {}
        }
        Ok(instance)
    }

    /// Where Kong's entities are found.
    pub(crate) fn entities(&self) -> &EntitySource {
        &self.shared.entities
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// A consumer, found within `cache_ttl`. `fallback` names the one that the caller would take in its place.
    ///
    /// # Errors
    /// Nobody can say whether there is one.
    pub(crate) async fn consumer(
        &self,
        pdk: &mut impl Pdk,
        key: ConsumerKey,
        fallback: Option<&str>,
    ) -> Result<Option<Arc<Consumer>>, Refusal> {
        let _timed = self.metrics().entities();
        self.entities().consumer(pdk, key, self.config.cache_ttl, fallback).await
    }

    /// How long a request may take.
    pub(crate) fn time_limit(&self) -> Duration {
        self.shared.time_limit
    }

    /// Whether the request came from an address that Kong trusts. One call, and a second one for a new address.
    ///
    /// # Errors
    /// It did not, or nobody knows where it came from.
    pub(crate) async fn check_peer(&self, pdk: &mut impl Pdk) -> Result<(), Refusal> {
        let Some(address) = pdk.client_ip().await else { return Err(Reason::UntrustedSource.into()) };
        let peers = self.peers.get_or_init(|| moka::sync::Cache::new(PEERS));
        let is_trusted = match peers.get(&address) {
            Some(known) => known,
            None => {
                let is_trusted = pdk.is_trusted_ip(&address).await;
                peers.insert(address.clone(), is_trusted);
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
        let known = self.shared.verified.get(&key).filter(|verified| verified.is_valid_at(now));
        self.metrics().remembered(known.is_some());
        let verified = match known {
            Some(verified) => verified,
            None => {
                let _timed = self.metrics().verify();
                let certificate = Certificate::from_der(&presented.leaf).ok_or(Reason::Malformed)?;
                let verified =
                    Arc::new(verify::verify(trust, presented, certificate, &self.shared.issuers, now)?);
                self.shared.verified.insert(key, Arc::clone(&verified));
                verified
            }
        };
        self.metrics().verified_until(verified.leaf_ends(), now);
        Ok(verified)
    }

    /// Asks whether a certificate of the chain has been revoked, for a request that began at this time. However long that
    /// takes, something of the request's time is left for what comes after it: to refuse it, or to find the consumer.
    ///
    /// # Errors
    /// See [`check::clear`].
    pub(crate) async fn clear(
        &self,
        verified: Arc<Verified>,
        begun: tokio::time::Instant,
    ) -> Result<(Cleared, Option<Refusal>), Refusal> {
        let of_request = begun + self.time_limit() * 4 / 5;
        let deadline = of_request.min(tokio::time::Instant::now() + self.terms.settings.timeout);
        let mode = self.config.revocation_check_mode;
        let _timed = (mode != RevocationMode::Skip).then(|| self.metrics().revocation());
        check::clear(&self.shared.revocation, verified, mode, &self.terms, deadline).await
    }

    /// The CAs as they are now, or were within `cache_ttl`.
    ///
    /// # Errors
    /// One of them is gone or broken, or nobody can say.
    pub(crate) async fn trust(&self) -> Result<Arc<Trust>, Refusal> {
        let timed = self.metrics().entities();
        let mut entities = Vec::new();
        for (position, entry) in self.config.ca_certificates.iter().enumerate() {
            if !is_pem(entry) {
                let found = self.shared.entities.ca_certificate(entry, self.config.cache_ttl).await?;
                entities.push(found.ok_or_else(|| EntitySource::unknown_ca(position, entry))?);
            }
        }
        drop(timed);
        let mut resolved = self.resolved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let trust = match resolved.as_ref().filter(|resolved| same(&resolved.entities, &entities)) {
            Some(resolved) => resolved.trust.clone(),
            None => {
                let trust = Trust::resolve(&self.config, &entities).map(Arc::new);
                *resolved = Some(Resolved { entities, trust: trust.clone() });
                trust
            }
        };
        trust.map_err(|problem| Refusal::with(Reason::CaUnavailable, problem))
    }

    /// The CAs as they were read last, where they could be used.
    pub(crate) fn trust_as_last_read(&self) -> Option<Arc<Trust>> {
        let resolved = self.resolved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        resolved.as_ref()?.trust.clone().ok()
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn idle_since(&self) -> Instant {
        *self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn same(some: &[Arc<CaCertificate>], others: &[Arc<CaCertificate>]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
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
    ids: Ids,
    last_int32_id: Mutex<u32>,
}

impl Instances {
    pub(crate) fn new(shared: Arc<Shared>, run: Run) -> Self {
        Self {
            shared,
            running: RwLock::default(),
            unstarted: Mutex::default(),
            ids: Ids::of(run),
            last_int32_id: Mutex::new(ids::first_int32()),
        }
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Where Kong's entities are found.
    pub(crate) fn entities(&self) -> &EntitySource {
        &self.shared.entities
    }

    /// Who is asked about the revocation of certificates.
    pub(crate) fn revocation(&self) -> &Revocation {
        &self.shared.revocation
    }

    /// The key that proofs are made with.
    pub(crate) fn proof_key(&self) -> &ProofKey {
        &self.shared.proof_key
    }

    /// Those that run.
    pub(crate) fn running(&self) -> Vec<Arc<Instance>> {
        self.read().values().cloned().collect()
    }

    /// How many there are whose configuration cannot be used.
    pub(crate) fn count_unstarted(&self) -> usize {
        self.unstarted().len()
    }

    /// Starts an instance and gives its id.
    ///
    /// # Errors
    /// See [`Instance::start`].
    pub(crate) async fn start(&self, config: &str) -> Result<u64, String> {
        let instance = Arc::new(Instance::start(config, Arc::clone(&self.shared)).await?);
        let id = self.ids.next();
        self.write().insert(id, instance);
        Ok(id)
    }

    /// Gives a configuration an id that fits an int32, and starts it. One that cannot be started is tried again by
    /// [`Self::get_or_retry`]: ProtoBuf:1 has no way to tell Kong why it cannot, but an event has.
    pub(crate) async fn start_or_keep(&self, config: &str) -> (i32, Result<(), String>) {
        let started = Instance::start(config, Arc::clone(&self.shared)).await;
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
    pub(crate) async fn get_or_retry(&self, id: u64) -> Option<Result<Arc<Instance>, String>> {
        if let Some(instance) = self.get(id) {
            return Some(Ok(instance));
        }
        let config = {
            let mut unstarted = self.unstarted();
            let unstarted = unstarted.get_mut(&id)?;
            unstarted.used = Instant::now();
            unstarted.config.clone()
        };
        let started = Instance::start(&config, Arc::clone(&self.shared)).await.map(Arc::new);
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

    /// Ends the instances of MsgPack:1. Whoever asks for one is told to start it anew.
    pub(crate) fn withdraw(&self) {
        self.write().retain(|id, _| Run::of(*id).is_none());
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
mod remembering;
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_that_come_around_meet_no_instance_that_is_there() {
        let source = EntitySource::Kong(crate::entity_source::KongConsumers::new());
        let shared =
            Shared::new(source, ProofKey::from_bytes([9; 32]), Revocation::Untold, Duration::from_secs(5));
        let instances = Instances::new(Arc::new(shared), Run::random());
        *instances.last_int32_id.lock().unwrap() = ids::MAX_INT32 - 1;
        let start = async || {
            let (id, started) = instances.start_or_keep("no configuration").await;
            assert!(started.is_err());
            id
        };
        assert_eq!([start().await, start().await, start().await], [i32::MAX, 1, 2]);
        *instances.last_int32_id.lock().unwrap() = ids::MAX_INT32 - 2;
        assert_eq!([start().await, start().await], [i32::MAX - 1, 3]);
        // Kept as long as a running one, from when it was last wanted.
        let before = Instant::now();
        assert!(instances.get_or_retry(3).await.unwrap().is_err());
        assert!(instances.unstarted()[&3].used >= before);
        instances.expire(Instant::now() + IDLE / 2);
        assert!(instances.is_known(3));
        instances.expire(Instant::now() + IDLE);
        assert!(!instances.is_known(3));
    }
}
