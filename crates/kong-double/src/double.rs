//! This knows the running double: its listener and the connections it accepts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    DoubleConfig, Level,
    error::Error,
    proxy::{Connection, serve},
    shared::{RpcCalls, Shared},
    worker::Worker,
};

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
        let shared = Arc::new(Shared::load(config)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Listen)?;
        let addr = listener.local_addr().map_err(Error::Listen)?;
        let workers = Worker::all(&shared.config());
        let banner = format!(
            "kong-double on {addr}: a stand-in for Kong, for tests, the demonstration and measurements only; not a gateway"
        );
        shared.error_log.write(Level::Notice, None, banner.as_bytes());
        for worker in &workers {
            worker.readiness().try_once().await;
            let (sweeping, checking) = (Arc::clone(worker), Arc::clone(worker));
            shared.spawn(async move { sweeping.sweep().await });
            shared.spawn(async move { checking.readiness().keep_trying().await });
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
    /// settings of the workers themselves (version, protocol, their number, the socket, timeouts, pool) stay as they were.
    ///
    /// # Errors
    /// Where Kong would refuse the configuration; the old one then stays.
    pub fn reload(&self, config: DoubleConfig) -> Result<(), Error> {
        self.shared.reload(config)
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
        self.shared.rpc_calls()
    }

    /// Makes what holds the consumers unreachable, or reachable again. While it is not, `kong.client.load_consumer`
    /// gives nil.
    pub fn set_consumer_store(&self, reachable: bool) {
        self.shared.consumer_store.store(reachable, Ordering::Relaxed);
    }

    /// Stops: closes the listener and every connection.
    pub async fn shutdown(mut self) {
        self.shared.stop();
        if let Some(listening) = self.listening.take() {
            // It can only end by this very stop.
            let _ = listening.await;
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.stop();
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
