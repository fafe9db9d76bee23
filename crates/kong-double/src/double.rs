//! This knows the running double: its listener, its workers, its current configuration, its counters.

use std::{
    collections::VecDeque,
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    DoubleConfig, Level,
    config::Loaded,
    error_log::ErrorLog,
    proxy::{Connection, serve},
    request::{Body, Request},
    schema::SchemaViolation,
    worker::Worker,
};

/// Why a double cannot start or reload.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener.
    #[error("cannot listen: {0}")]
    Listen(#[source] io::Error),
    /// `plugin_info` is not what a plugin server prints on `-dump`.
    #[error("plugin info: {0}")]
    PluginInfo(&'static str),
    /// The plugin wants a phase that the double does not have.
    #[error("the double has no phase {0:?}, only access, response and log")]
    Phase(String),
    /// A config uses another plugin than the one of `plugin_info`.
    #[error("plugin '{0}' not enabled; add it to the 'plugins' configuration property")]
    UnknownPlugin(String),
    /// A plugin's config violates its schema; Kong refuses such a configuration.
    #[error("plugin {plugin} of {}: {violation}", route.as_deref().map_or("all routes".into(), |r| format!("route {r}")))]
    Config {
        /// The plugin.
        plugin: String,
        /// The route it is on; none for a global plugin.
        route: Option<String>,
        /// What is wrong.
        #[source]
        violation: SchemaViolation,
    },
    /// A route's path is no prefix.
    #[error("route {route}: path {path:?} does not start with a slash")]
    RoutePath {
        /// The route's name.
        route: String,
        /// Its path.
        path: String,
    },
    /// No address and no CIDR block.
    #[error("trusted_ips: {0:?} is neither an address nor a CIDR block")]
    TrustedIp(String),
    /// A double without workers answers nobody.
    #[error("a double needs at least one worker")]
    NoWorkers,
}

/// RPC calls made so far.
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
    /// The methods called, such as `plugin.HandleEvent`, in order.
    pub methods: Vec<String>,
}

impl RequestCalls {
    /// HandleEvent and steps: what this request would cost once its instance runs.
    pub fn event_calls(&self) -> usize {
        self.methods.iter().filter(|m| !m.ends_with("Instance")).count()
    }
}

/// What all connections and workers share.
pub(crate) struct Shared {
    config: RwLock<Arc<Loaded>>,
    sequence: Mutex<u64>,
    pub(crate) error_log: ErrorLog,
    pub(crate) upstream: Client<HttpConnector, Body>,
    total_calls: Arc<AtomicU64>,
    finished: Mutex<VecDeque<RequestCalls>>,
    id_seed: u64,
    last_id: AtomicU64,
    stop: watch::Sender<bool>,
}

impl Shared {
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

/// Kong's double: for tests, the demonstration and measurements only. See the crate's documentation.
///
/// Dropping it stops it.
pub struct Double {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<Option<()>>>,
}

impl Double {
    /// Starts a double on a free port of 127.0.0.1. It serves plain HTTP/1.1 on the current tokio runtime.
    ///
    /// # Errors
    /// Where Kong would refuse the configuration, or there is no port.
    pub async fn start(config: DoubleConfig) -> Result<Self, Error> {
        let mut sequence = 0;
        let loaded = Loaded::load(config, &mut sequence)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Listen)?;
        let addr = listener.local_addr().map_err(Error::Listen)?;
        let workers = Worker::all(&loaded.settings);

        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let upstream = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let shared = Arc::new(Shared {
            config: RwLock::new(Arc::new(loaded)),
            sequence: Mutex::new(sequence),
            error_log: ErrorLog::new(),
            upstream,
            total_calls: Arc::default(),
            finished: Mutex::default(),
            id_seed: RandomState::new().hash_one(addr),
            last_id: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        });
        let banner = format!(
            "kong-double on {addr}: a stand-in for Kong, for tests, the demonstration and measurements only; not a gateway"
        );
        shared.error_log.write(Level::Notice, None, banner.as_bytes());
        for worker in &workers {
            let worker = Arc::clone(worker);
            shared.spawn(async move { worker.sweep().await });
        }
        let listening = Some(shared.spawn(accept(listener, addr, Arc::clone(&shared), workers)));
        Ok(Self { addr, shared, listening })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Loads another configuration, as a POST to Kong's `/config` does: every plugin config gets a new
    /// `__seq__`, and the next request of each worker starts a new instance and closes the old one. The
    /// settings of the workers themselves (their number, the socket, timeouts, pool) stay as they were.
    ///
    /// # Errors
    /// Where Kong would refuse the configuration; the old one then stays.
    pub fn reload(&self, config: DoubleConfig) -> Result<(), Error> {
        let mut sequence = self.shared.sequence.lock().expect("no panic while held");
        let loaded = Loaded::load(config, &mut sequence)?;
        *self.shared.config.write().expect("no panic while held") = Arc::new(loaded);
        Ok(())
    }

    /// The error log so far: `[warn] 0#0: *7 [kong] mp_rpc.lua:129 [mtls-auth] text`.
    pub fn error_log(&self) -> Vec<String> {
        self.shared.error_log.lines()
    }

    /// Waits for a line of the error log that satisfies the predicate, at most 10 s, and gives back the
    /// first one since the start of the log.
    pub async fn wait_for_log(&self, predicate: impl Fn(&str) -> bool) -> Option<String> {
        self.shared.error_log.wait_for(Duration::from_secs(10), predicate).await
    }

    /// RPC calls made so far.
    pub fn rpc_calls(&self) -> RpcCalls {
        let requests = self.shared.finished.lock().expect("no panic while held").iter().cloned().collect();
        RpcCalls { total: self.shared.total_calls.load(Ordering::Relaxed), requests }
    }

    /// Stops: closes the listener and every connection.
    pub async fn shutdown(mut self) {
        self.shared.stop.send_replace(true);
        if let Some(listening) = self.listening.take() {
            // It can only end by this very stop.
            let _ = listening.await;
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>, workers: Vec<Arc<Worker>>) {
    for worker in workers.iter().cycle() {
        let Ok((stream, client)) = listener.accept().await else { continue };
        // Without it a small response would wait for the client's delayed acknowledgement.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let number = shared.error_log.next_connection();
        let connection = Arc::new(Connection {
            shared: Arc::clone(&shared),
            worker: Arc::clone(worker),
            number,
            client,
            server,
        });
        let service = service_fn(move |http| {
            let connection = Arc::clone(&connection);
            // A task of its own: Kong finishes a request's plugins even when its client has gone.
            let served = connection.shared.spawn(serve(http, Arc::clone(&connection)));
            async move { served.await.ok().flatten().ok_or_else(|| io::Error::other("the double stops")) }
        });
        let http = http1::Builder::new()
            .timer(TokioTimer::new())
            .max_headers(2000)
            .serve_connection(TokioIo::new(stream), service);
        shared.spawn(http);
    }
}
