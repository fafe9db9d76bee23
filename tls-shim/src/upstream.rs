//! This knows Kong's side: a request goes to it on a connection that was kept, or on a new one.

use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Response, Uri, Version};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::answer::{Answer, Way};
use crate::body::Outgoing;
use crate::dial::{Caller, Dial, DialError, Protocol};
use crate::file::FileError;
use crate::kept::{Kept, Returns};
use crate::limits;
use crate::multiplexed::{Multiplexed, Room};
use crate::proxy_protocol::Addresses;
use crate::settings::Settings;
use crate::sni::ServerName;

/// The ways to Kong, for all clients.
pub(crate) struct Kong {
    plain: Dial,
    grpc: Option<Dial>,
    kept: Arc<Kept>,
}

/// The ways to Kong of one client.
pub(crate) struct Upstream {
    kong: Arc<Kong>,
    caller: Caller,
    /// Those of all clients, or its own.
    kept: Arc<Kept>,
    multiplexed: Multiplexed,
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

impl SendError {
    /// Whether it is the client's doing: it left while it sent a body.
    pub(crate) fn is_by_client(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_user())
    }

    /// The word for it in the access log.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Dial(_) => "kong_unreachable",
            Self::Http(_) if self.is_by_client() => "client_left",
            Self::Http(_) => "kong_broke_off",
        }
    }
}

impl Kong {
    /// No connection is made yet.
    ///
    /// # Errors
    /// See [`Dial::new`].
    pub(crate) fn new(settings: &Settings) -> Result<Self, FileError> {
        let dial = |upstream| Dial::new(upstream, settings);
        Ok(Self {
            plain: dial(&settings.upstream)?,
            grpc: settings.grpc_upstream.as_ref().map(dial).transpose()?,
            kept: Arc::default(),
        })
    }
}

impl Upstream {
    /// For a client that has come; no connection is made yet.
    pub(crate) fn new(kong: Arc<Kong>, named: &ServerName, addresses: Addresses) -> Self {
        let name = match named {
            ServerName::Name(name) => Some(name.as_str().into()),
            // Kong might take it for a name that the shim has not.
            ServerName::None | ServerName::Undecidable(_) => None,
        };
        let kept = if kong.plain.announces() { Arc::default() } else { Arc::clone(&kong.kept) };
        Self { kong, caller: Caller { name, addresses }, kept, multiplexed: Multiplexed::default() }
    }

    /// Whether Kong has a listener for gRPC.
    pub(crate) fn takes_grpc(&self) -> bool {
        self.kong.grpc.is_some()
    }

    /// Sends a request, whose target is a path, over HTTP/1.1. The answer comes as soon as its header is there, the body
    /// may still be on its way in both directions. Dropping the future, or the answer's body, ends the request and its
    /// connection.
    ///
    /// A worker of Kong that ends closes its connections, whatever is on its way to it. So a request is sent again where none
    /// of it had been written to a kept connection, and once more over a new one where a kept one ended in place of an
    /// answer, if it has no body, may be done twice (RFC 9110, section 9.2.2) and `may_go_on` still.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) async fn send(
        &self,
        mut request: Request<Outgoing>,
        may_go_on: impl Fn() -> bool,
    ) -> Result<Response<Answer>, SendError> {
        let plain = &self.kong.plain;
        let name = plain.name(&self.caller);
        *request.version_mut() = Version::HTTP_11;
        let mut is_again = false;
        loop {
            let waiting = if is_again { None } else { self.kept.take(&name) };
            let is_kept = waiting.is_some();
            let copy = if is_kept { again(&request) } else { None };
            let mut sender = match waiting {
                Some(sender) => sender,
                // Boxed: it is rare, and its room would be part of each request.
                None => Box::pin(open_http1(plain, &self.caller)).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let way = Way::Kept(Returns::new(&self.kept, name, sender));
                    return Ok(response.map(|body| Answer::Kong { body, _way: way }));
                }
                Err(mut error) => match (error.take_message(), copy) {
                    (Some(unsent), _) if is_kept => request = unsent,
                    (None, Some(copy)) if has_ended(error.error()) && may_go_on() => {
                        tracing::debug!(
                            "a kept connection to Kong ended in place of an answer: the request is sent again"
                        );
                        (request, is_again) = (copy, true);
                    }
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }

    /// As [`Self::send`], over HTTP/2 for this host. The request shares its connection with others of the
    /// same client, and ends alone.
    ///
    /// # Errors
    /// See [`SendError`].
    ///
    /// # Panics
    /// Where Kong has no such listener ([`Self::takes_grpc`]).
    pub(crate) async fn send_grpc(
        &self,
        host: Authority,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Answer>, SendError> {
        let dial = self.kong.grpc.as_ref().expect("a listener for gRPC");
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        (uri.scheme, uri.authority) = (Some(dial.scheme()), Some(host));
        *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path are a URI");
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        loop {
            let Room { mut sender, stream, is_kept } =
                self.multiplexed.room(async || open_http2(dial, &self.caller).await).await?;
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(response.map(|body| Answer::Kong { body, _way: Way::Multiplexed(stream) }));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }
}

/// The same request, if it may be done twice and has no body.
fn again(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let body = request.method().is_idempotent().then(|| request.body().again()).flatten()?;
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether the connection is gone, rather than that something wrong came over it.
fn has_ended(error: &hyper::Error) -> bool {
    !error.is_parse() && !error.is_user()
}

async fn open_http1(dial: &Dial, caller: &Caller) -> Result<http1::SendRequest<Outgoing>, SendError> {
    let stream = dial.connect(caller, Protocol::Http1).await?;
    let (sender, connection) =
        http1::Builder::new().max_headers(limits::ANSWER_HEADER_FIELDS).handshake(stream).await?;
    drive(connection.with_upgrades());
    Ok(sender)
}

async fn open_http2(dial: &Dial, caller: &Caller) -> Result<http2::SendRequest<Outgoing>, SendError> {
    let stream = dial.connect(caller, Protocol::Http2).await?;
    let (interval, patience) = limits::PING;
    // An answer that is not read fills its own window only: the connection has room for those of all streams, or a few
    // such answers would bring all others to a halt.
    let window = limits::UPSTREAM_STREAM_WINDOW;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window * limits::UPSTREAM_STREAMS as u32)
        .max_header_list_size(limits::ANSWER_HEADER_BYTES)
        .handshake(stream)
        .await?;
    drive(connection);
    Ok(sender)
}

/// Lets a connection run to its end.
fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to Kong broke");
        }
    });
}
