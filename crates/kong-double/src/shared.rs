//! This knows what all connections and workers of a double share: configuration, log, counters, the way to
//! the upstream, and when to stop.

use std::{
    collections::VecDeque,
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    config::{DoubleConfig, Loaded},
    error::Error,
    error_log::ErrorLog,
    request::{Body, Request},
};

/// RPC calls made so far, and answers to PDK calls in ProtoBuf:1: each is a message that Kong wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcCalls {
    /// All calls of all workers, in whichever phase.
    pub total: u64,
    /// The last 1,000 requests that were answered, oldest first.
    pub requests: Vec<RequestCalls>,
}

/// The calls that one request made before its response left, so without those of the log phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCalls {
    /// Path and query.
    pub uri: String,
    /// What the client was answered.
    pub status: u16,
    /// The methods called, such as `plugin.HandleEvent`, in order. In ProtoBuf:1 the messages that Kong wrote: its
    /// commands, such as `cmd_handle_event`, and the PDK methods that it answered.
    pub methods: Vec<String>,
}

impl RequestCalls {
    /// HandleEvent and steps, or what stands for them: what this request would cost once its instance runs.
    pub fn event_calls(&self) -> usize {
        self.methods.iter().filter(|m| !m.to_ascii_lowercase().ends_with("instance")).count()
    }
}

/// What all connections and workers share.
pub(crate) struct Shared {
    config: RwLock<Arc<Loaded>>,
    sequence: Mutex<u64>,
    pub(crate) error_log: ErrorLog,
    pub(crate) upstream: Client<HttpConnector, Body>,
    total_calls: Arc<AtomicU64>,
    pub(crate) consumer_store: Arc<AtomicBool>,
    finished: Mutex<VecDeque<RequestCalls>>,
    id_seed: u64,
    last_id: AtomicU64,
    stop: watch::Sender<bool>,
}

impl Shared {
    /// The shared part of a new double.
    pub(crate) fn load(config: DoubleConfig) -> Result<Self, Error> {
        let mut sequence = 0;
        let loaded = Loaded::load(config, &mut sequence)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self {
            config: RwLock::new(Arc::new(loaded)),
            sequence: Mutex::new(sequence),
            error_log: ErrorLog::new(),
            upstream: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector),
            total_calls: Arc::default(),
            consumer_store: Arc::new(AtomicBool::new(true)),
            finished: Mutex::default(),
            id_seed: RandomState::new().hash_one("request id"),
            last_id: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        })
    }

    pub(crate) fn reload(&self, config: DoubleConfig) -> Result<(), Error> {
        let mut sequence = self.sequence.lock().expect("no panic while held");
        let loaded = Loaded::load(config, &mut sequence)?;
        *self.config.write().expect("no panic while held") = Arc::new(loaded);
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<Loaded> {
        Arc::clone(&self.config.read().expect("no panic while held"))
    }

    /// 32 hexadecimal digits, like Kong's.
    pub(crate) fn next_request_id(&self) -> String {
        format!("{:016x}{:016x}", self.id_seed, self.last_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn count(&self, request: &Request, status: u16) {
        let methods = request.calls.lock().expect("no panic while held").clone();
        let entry = RequestCalls { uri: request.request_uri(), status, methods };
        let mut finished = self.finished.lock().expect("no panic while held");
        if finished.len() == 1000 {
            finished.pop_front();
        }
        finished.push_back(entry);
    }

    pub(crate) fn total_calls(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.total_calls)
    }

    pub(crate) fn rpc_calls(&self) -> RpcCalls {
        let requests = self.finished.lock().expect("no panic while held").iter().cloned().collect();
        RpcCalls { total: self.total_calls.load(Ordering::Relaxed), requests }
    }

    /// Ends all tasks that were spawned here.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Runs a task until it ends or the double stops.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => None,
                output = task => Some(output),
            }
        })
    }
}
