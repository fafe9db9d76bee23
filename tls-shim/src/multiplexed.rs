//! This knows the connections to Kong that carry many requests at a time (HTTP/2), all of one client.
//!
//! nginx ends such a connection with all that is on it for what a single request may do: trailers, or a header field
//! over its limit. So clients do not share one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use crate::body::Outgoing;
use crate::limits;

/// Connections, with or without requests on them.
#[derive(Default)]
pub(crate) struct Multiplexed {
    connections: Mutex<Vec<Connection>>,
    /// Held by the one who opens a connection, so that a hundred requests at once do not open a hundred.
    opening: tokio::sync::Mutex<()>,
}

struct Connection {
    sender: SendRequest<Outgoing>,
    streams: Stream,
    /// How many it has had in all.
    requests: usize,
    used: Instant,
}

/// A request that runs until this is dropped.
#[derive(Clone, Default)]
pub(crate) struct Stream(Arc<()>);

/// Room for one request.
pub(crate) struct Room {
    pub(crate) sender: SendRequest<Outgoing>,
    pub(crate) stream: Stream,
    /// Whether the connection was there before, so that Kong may have closed it.
    pub(crate) is_kept: bool,
}

impl Connection {
    fn running(&self) -> usize {
        // One is ours.
        Arc::strong_count(&self.streams.0) - 1
    }

    fn has_room(&self) -> bool {
        self.running() < limits::UPSTREAM_STREAMS && self.requests < limits::UPSTREAM_REQUESTS
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && (self.running() > 0 || self.used.elapsed() < limits::UPSTREAM_IDLE)
    }
}

impl Multiplexed {
    /// Room on a connection that is there, or on the one that `open` makes.
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) async fn room<E>(
        &self,
        open: impl AsyncFnOnce() -> Result<SendRequest<Outgoing>, E>,
    ) -> Result<Room, E> {
        if let Some(room) = self.find() {
            return Ok(room);
        }
        let _alone = self.opening.lock().await;
        if let Some(room) = self.find() {
            return Ok(room);
        }
        let sender = open().await?;
        let stream = Stream::default();
        let streams = stream.clone();
        let connection = Connection { sender: sender.clone(), streams, requests: 1, used: Instant::now() };
        self.connections().push(connection);
        Ok(Room { sender, stream, is_kept: false })
    }

    fn find(&self) -> Option<Room> {
        let mut connections = self.connections();
        connections.retain(Connection::is_usable);
        let connection = connections.iter_mut().find(|connection| connection.has_room())?;
        connection.requests += 1;
        connection.used = Instant::now();
        let (sender, stream) = (connection.sender.clone(), connection.streams.clone());
        Some(Room { sender, stream, is_kept: true })
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
