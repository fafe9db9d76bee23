//! This knows the connections to Kong that wait for a request: each carries one at a time (HTTP/1.1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use crate::body::Outgoing;
use crate::limits;

/// Connections without a request, the last used last.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Vec<Waiting>>);

struct Waiting {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

impl Waiting {
    /// Kong may be about to close what has waited for too long.
    fn is_usable(&self) -> bool {
        self.sender.is_ready() && self.since.elapsed() < limits::UPSTREAM_IDLE
    }
}

impl Kept {
    /// The connection that was used last, so that those over the need of the day end.
    pub(crate) fn take(&self) -> Option<SendRequest<Outgoing>> {
        let mut waiting = self.waiting();
        loop {
            let last = waiting.pop()?;
            if last.is_usable() {
                return Some(last.sender);
            }
        }
    }

    /// Keeps a connection once its answer has come to an end, and the request too. Until then nobody else gets it.
    pub(crate) fn put(self: &Arc<Self>, mut sender: SendRequest<Outgoing>) {
        if sender.is_ready() {
            return self.add(sender);
        }
        let kept = Arc::clone(self);
        tokio::spawn(async move {
            // Where the answer is given up in the middle, the connection ends, and is never ready.
            if sender.ready().await.is_ok() {
                kept.add(sender);
            }
        });
    }

    fn add(&self, sender: SendRequest<Outgoing>) {
        let mut waiting = self.waiting();
        // The first has waited longest.
        if waiting.first().is_some_and(|first| !first.is_usable()) {
            waiting.retain(Waiting::is_usable);
        }
        if waiting.len() < limits::UPSTREAM_IDLE_CONNECTIONS {
            waiting.push(Waiting { sender, since: Instant::now() });
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
