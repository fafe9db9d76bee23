//! This knows the connections to Kong that wait for a request: each carries one at a time (HTTP/1.1).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http1::SendRequest;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::body::Outgoing;
use crate::dial::Sni;
use crate::limits;

/// Connections without a request.
#[derive(Default)]
pub(crate) struct Kept(Mutex<All>);

#[derive(Default)]
struct All {
    /// Only requests of clients that named the same server may share a connection. The last used is last.
    by_name: HashMap<Sni, Vec<Waiting>>,
    count: usize,
    swept: Option<Instant>,
}

/// A connection that is kept as soon as this is dropped, with the answer that came on it: by then it is mostly ready for
/// the next request, and nothing has to wait for that.
pub(crate) struct Returns {
    kept: Arc<Kept>,
    /// None once it was given back.
    connection: Option<(Sni, SendRequest<Outgoing>)>,
}

impl Returns {
    pub(crate) fn new(kept: &Arc<Kept>, name: Sni, sender: SendRequest<Outgoing>) -> Self {
        Self { kept: Arc::clone(kept), connection: Some((name, sender)) }
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        if let Some((name, sender)) = self.connection.take() {
            self.kept.put(name, sender);
        }
    }
}

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
    pub(crate) fn take(&self, name: &Sni) -> Option<SendRequest<Outgoing>> {
        let mut all = self.all();
        let waiting = all.by_name.get_mut(name)?;
        let before = waiting.len();
        let usable = std::iter::from_fn(|| waiting.pop()).find(Waiting::is_usable);
        let taken = before - waiting.len();
        all.count -= taken;
        usable.map(|waiting| waiting.sender)
    }

    /// Keeps a connection once its answer has come to an end, and the request too. Until then nobody else gets it.
    fn put(self: &Arc<Self>, name: Sni, mut sender: SendRequest<Outgoing>) {
        if sender.is_ready() {
            return self.all().add(name, sender);
        }
        // Where there is none any more, the connection ends with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let kept = Arc::clone(self);
        runtime.spawn(async move {
            // Where the answer is given up in the middle, the connection ends, and is never ready.
            if sender.ready().await.is_ok() {
                kept.all().add(name, sender);
            }
        });
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn add(&mut self, name: Sni, sender: SendRequest<Outgoing>) {
        self.sweep();
        if self.count < limits::UPSTREAM_IDLE_CONNECTIONS {
            self.by_name.entry(name).or_default().push(Waiting { sender, since: Instant::now() });
            self.count += 1;
        }
    }

    /// Forgets what is of no use any more, now and then.
    fn sweep(&mut self) {
        if self.swept.is_some_and(|swept| swept.elapsed() < limits::UPSTREAM_SWEEP) {
            return;
        }
        self.swept = Some(Instant::now());
        self.by_name.retain(|_, waiting| {
            waiting.retain(Waiting::is_usable);
            !waiting.is_empty()
        });
        self.count = self.by_name.values().map(Vec::len).sum();
    }
}
