//! This knows Kong's side: a request goes to it on a connection that was kept, or on a new one.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;

use crate::body::Outgoing;
use crate::dial::{Dial, DialError};
use crate::kept::Kept;
use crate::limits;

/// The way to Kong.
pub(crate) struct Upstream {
    dial: Dial,
    kept: Arc<Kept>,
}

/// Why Kong gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke, or what came over it is not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Upstream {
    /// No connection is made yet.
    pub(crate) fn new(authority: Authority) -> Self {
        Self { dial: Dial::new(authority), kept: Arc::default() }
    }

    /// Sends a request. The answer comes as soon as its header is there, the body may still be on its way in both
    /// directions. Dropping the future, or the answer's body, ends the request and its connection.
    ///
    /// A request is sent again only where none of it had been written to a kept connection that Kong had closed.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) async fn send(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(target);
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        loop {
            let kept = self.kept.take();
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.open().await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.kept.put(sender);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }

    async fn open(&self) -> Result<http1::SendRequest<Outgoing>, SendError> {
        let stream = self.dial.connect().await?;
        let (sender, connection) =
            http1::Builder::new().max_headers(limits::HEADER_FIELDS).handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to Kong broke");
            }
        });
        Ok(sender)
    }
}
