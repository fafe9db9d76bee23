//! This knows which plugin instances one worker has running on the plugin server.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::{DoubleConfig, value::Value};

/// A worker's instances by plugin id.
pub(crate) struct Instances {
    running: Mutex<HashMap<String, Instance>>,
    changed: Notify,
    claim_timeout: Duration,
    keeps_stale_claims: bool,
}

#[derive(Clone, Debug)]
struct Instance {
    /// `Nil` while it is being started, and for ever where the server gave none.
    id: Value,
    seq: u64,
    /// Whether a start has succeeded; a reset leaves first starts alone.
    was_started: bool,
}

/// Who may do what about an instance.
pub(crate) enum Claim<'a> {
    /// It runs, with this config.
    Running(Value),
    /// The caller starts it.
    Start(StartClaim<'a>),
    /// Somebody else was to start it and did not in time.
    TimedOut,
}

/// The right to start an instance. Dropped with neither [`StartClaim::started`] nor [`StartClaim::failed`], as a Lua
/// error does, it stays claimed.
pub(crate) struct StartClaim<'a> {
    instances: &'a Instances,
    plugin_id: String,
    seq: u64,
    old: Option<Value>,
}

impl Instances {
    pub(crate) fn new(settings: &DoubleConfig) -> Self {
        Self {
            running: Mutex::default(),
            changed: Notify::new(),
            claim_timeout: settings.claim_timeout,
            keeps_stale_claims: settings.version.keeps_stale_claims(),
        }
    }

    /// Finds the instance of this plugin and config, or claims its start. Waits while another request
    /// starts one. (Kong polls every 100 ms; here waiters are told.)
    pub(crate) async fn claim(&self, plugin_id: &str, seq: u64) -> Claim<'_> {
        let deadline = Instant::now() + self.claim_timeout;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(claim) = self.try_claim(plugin_id, seq) {
                return claim;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                if !self.keeps_stale_claims {
                    self.forget(plugin_id);
                }
                return Claim::TimedOut;
            }
        }
    }

    fn try_claim(&self, plugin_id: &str, seq: u64) -> Option<Claim<'_>> {
        let mut running = self.running.lock().expect("no panic while held");
        let old = match running.get_mut(plugin_id) {
            Some(instance) if instance.id == Value::Nil => return None,
            Some(instance) if instance.seq == seq => return Some(Claim::Running(instance.id.clone())),
            Some(instance) => Some(std::mem::replace(&mut instance.id, Value::Nil)),
            None => {
                running.insert(plugin_id.into(), Instance { id: Value::Nil, seq, was_started: false });
                None
            }
        };
        Some(Claim::Start(StartClaim { instances: self, plugin_id: plugin_id.into(), seq, old }))
    }

    /// Forgets one, started or not.
    pub(crate) fn forget(&self, plugin_id: &str) {
        self.running.lock().expect("no panic while held").remove(plugin_id);
        self.changed.notify_waiters();
    }

    /// Forgets all that were ever started.
    pub(crate) fn reset(&self) {
        self.running.lock().expect("no panic while held").retain(|_, instance| !instance.was_started);
        self.changed.notify_waiters();
    }
}

impl StartClaim<'_> {
    /// The server has started it; gives back the id of the instance that this one replaces.
    pub(crate) fn started(mut self, id: Value) -> Option<Value> {
        let instance = Instance { id, seq: self.seq, was_started: true };
        self.instances.running.lock().expect("no panic while held").insert(self.plugin_id.clone(), instance);
        self.instances.changed.notify_waiters();
        self.old.take()
    }

    /// The server has not started it: the next request may try.
    pub(crate) fn failed(self) {
        self.instances.forget(&self.plugin_id);
    }
}
