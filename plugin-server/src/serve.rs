//! This knows how connections are taken, and how the server leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};

use crate::conversation::{self, Counted};
use crate::rpc::Server;
use crate::socket::Socket;

/// How often what Kong left behind is looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long running events may take to end, and Kong to close its connections, once the server has been told to leave.
const DRAIN: Duration = Duration::from_secs(5);

/// After how long without a connection nothing waits any more in a listener that nothing leads to.
const EMPTY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait before accepting again after a failure, such as having no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves connections until `leave` resolves, then lets running events end.
pub(crate) async fn serve(
    mut listener: UnixListener,
    mut socket: Socket,
    server: Arc<Server>,
    leave: impl Future<Output = ()>,
) {
    let expiry = tokio::spawn(expire(Arc::clone(&server)));
    let handing_over = Arc::clone(&server);
    tokio::spawn(async move { handing_over.hand_over().await });
    let mut leave = std::pin::pin!(leave);
    loop {
        tokio::select! {
            biased;
            () = &mut leave => break,
            () = accept(&listener, &server) => {}
            // Who leaves begins to put nothing back: it is the successor's by then.
            anew = socket.keep() => {
                tokio::spawn(empty(std::mem::replace(&mut listener, anew), Arc::clone(&server)));
            }
        }
    }
    expiry.abort();
    tracing::info!(unfinished = server.unfinished(), "leaving");
    // Steps come on connections that are there already or on new ones, so the door stays open for now. A reply that is
    // not written out when the process ends is a closed connection to Kong, which then lets the request pass; so is a
    // connection that Kong has just taken from its pool. Where workers of Kong leave, too, their pools go with them.
    let is_drained = || server.unfinished() == 0 && server.connections.load(Ordering::Acquire) == 0;
    let drained = async {
        while !is_drained() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = accept(&listener, &server) => {}
        result = tokio::time::timeout(DRAIN, drained) => {
            if result.is_err() && server.unfinished() > 0 {
                tracing::warn!(unfinished = server.unfinished(), "left before all events had ended");
            }
        }
    }
    socket.leave();
}

async fn accept(listener: &UnixListener, server: &Arc<Server>) {
    loop {
        accept_one(listener, server).await;
    }
}

async fn accept_one(listener: &UnixListener, server: &Arc<Server>) {
    match listener.accept().await {
        Ok((stream, _)) => {
            tokio::spawn(connection(stream, Arc::clone(server)));
        }
        Err(error) => {
            tracing::error!(%error, "a connection cannot be accepted");
            tokio::time::sleep(ACCEPT_BACKOFF).await;
        }
    }
}

/// Accepts what still waits in a listener that nothing leads to any more.
async fn empty(listener: UnixListener, server: Arc<Server>) {
    while tokio::time::timeout(EMPTY_AFTER, accept_one(&listener, &server)).await.is_ok() {}
}

async fn expire(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        server.expire(Instant::now());
    }
}

async fn connection(stream: UnixStream, server: Arc<Server>) {
    let _open = Counted::one_of(&server.connections);
    if let Err(error) = conversation::converse(stream, &server).await {
        tracing::warn!(%error, "a connection was closed");
    }
}

#[cfg(test)]
mod machine;
