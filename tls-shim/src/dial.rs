//! This knows how a connection to Kong's proxy listener is made.

use std::io;
use std::sync::Arc;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper::service::Service;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;

use crate::limits;

/// The server name by which connections to Kong are told apart; none where it is of no matter to Kong.
pub(crate) type Sni = Option<Arc<str>>;

/// The way to one listener of Kong's.
pub(crate) struct Dial {
    target: Uri,
    connector: TowerToHyperService<HttpConnector>,
}

/// Why Kong cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No TCP connection within [`limits::CONNECT`].
    #[error("cannot connect: {0}")]
    Connect(io::Error),
}

impl Dial {
    /// Prepares connections; none is made yet.
    pub(crate) fn new(authority: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits::CONNECT));
        connector.set_nodelay(true);
        let mut target = http::uri::Parts::default();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(authority);
        target.path_and_query = Some(PathAndQuery::from_static("/"));
        let target = Uri::from_parts(target).expect("scheme, authority and path are a URI");
        Self { target, connector: TowerToHyperService::new(connector) }
    }

    /// Makes a connection, to whichever of the host's addresses answers first.
    ///
    /// # Errors
    /// See [`DialError`].
    pub(crate) async fn connect(&self) -> Result<TokioIo<TcpStream>, DialError> {
        let connected = self.connector.call(self.target.clone()).await;
        connected.map_err(|error| DialError::Connect(io::Error::other(error)))
    }
}
