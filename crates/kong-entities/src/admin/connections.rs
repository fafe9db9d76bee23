//! This knows how to ask an HTTP server: connections that are kept, TLS, and what bounds an answer in time and size.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, SERVER, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use openssl::ssl::SslConnector;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::settings::{AdminSettings, AdminSettingsError, AdminToken, Endpoint};
use crate::SourceFault;

/// So many requests at a time, however many callers wait: Kong's Admin API has a few workers, which also serve traffic.
const CONCURRENT: usize = 16;

/// So many connections are kept between requests.
const IDLE_CONNECTIONS: usize = 4;

/// Below the 60 or 75 seconds after which servers and what stands between let go of a connection.
const IDLE: Duration = Duration::from_secs(30);

const ADMIN_TOKEN: HeaderName = HeaderName::from_static("kong-admin-token");

type Sender = SendRequest<Empty<Bytes>>;

/// The way to one server.
pub(super) struct Connections {
    endpoint: Endpoint,
    tls: Option<SslConnector>,
    token: Option<AdminToken>,
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<(Sender, Instant)>>,
    /// Answers in place of a server.
    #[cfg(any(test, feature = "fuzzing"))]
    script: Option<Box<Script>>,
}

/// What is answered for a target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) type Script = dyn Fn(&str) -> Result<Answer, SourceFault> + Send + Sync;

/// What the server said.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    /// When the server wrote it, by its clock.
    pub(crate) date: Option<HeaderValue>,
    /// What it says that it is.
    pub(crate) server: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Connections {
    /// Prepares the way; no connection is made yet.
    pub(super) fn new(settings: AdminSettings) -> Result<Self, AdminSettingsError> {
        let endpoint = Endpoint::parse(&settings.url)?;
        if let (false, Some(path)) = (endpoint.tls, settings.ca_file.as_ref()) {
            let problem = "it is of no use with an http:// URL".into();
            return Err(AdminSettingsError::CaFile { path: path.clone(), problem });
        }
        let tls = endpoint.tls.then(|| connector(settings.ca_file.as_deref())).transpose()?;
        Ok(Self {
            endpoint,
            tls,
            token: settings.token,
            timeout: settings.timeout,
            permits: Semaphore::new(CONCURRENT),
            idle: Mutex::default(),
            #[cfg(any(test, feature = "fuzzing"))]
            script: None,
        })
    }

    /// The way to no server: these are the answers.
    ///
    /// # Errors
    /// See [`Self::new`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn scripted(settings: AdminSettings, script: Box<Script>) -> Result<Self, AdminSettingsError> {
        Ok(Self { script: Some(script), ..Self::new(settings)? })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks for a target, and reads all of the answer, of which no more than `max_bytes` may be body. The time that it
    /// may take includes waiting for other requests to end.
    pub(super) async fn get(&self, target: &str, max_bytes: usize) -> Result<Answer, SourceFault> {
        #[cfg(any(test, feature = "fuzzing"))]
        if let Some(script) = &self.script {
            return script(target);
        }
        tokio::time::timeout(self.timeout, self.get_unbounded(target, max_bytes))
            .await
            .unwrap_or(Err(SourceFault::TimedOut(self.timeout)))
    }

    async fn get_unbounded(&self, target: &str, max_bytes: usize) -> Result<Answer, SourceFault> {
        let _permit = self.permits.acquire().await.map_err(|_| SourceFault::BrokenOff)?;
        // A kept connection may be closed by the server at any time, also while a request is on its way. To ask again
        // is safe (RFC 9110, section 9.2.2); on a new connection a failure counts.
        while let Some(mut kept) = self.take_idle() {
            if let Ok(response) = self.send(&mut kept, target).await {
                return self.read(kept, response, max_bytes).await;
            }
        }
        let mut sender = self.connect().await?;
        let response = self.send(&mut sender, target).await.map_err(|error| unreachable(&error))?;
        self.read(sender, response, max_bytes).await
    }

    async fn send(&self, sender: &mut Sender, target: &str) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::new(Empty::new());
        // Encoded by us, piece by piece.
        *request.uri_mut() = target.parse().expect("a path and query");
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(self.endpoint.authority.as_str()).expect("an authority");
        headers.insert(HOST, host);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("kong-mtls-auth"));
        if let Some(token) = &self.token {
            headers.insert(ADMIN_TOKEN, token.header());
        }
        sender.ready().await?;
        sender.send_request(request).await
    }

    async fn read(
        &self,
        sender: Sender,
        response: Response<Incoming>,
        max_bytes: usize,
    ) -> Result<Answer, SourceFault> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                SourceFault::Malformed(format!("it is longer than {max_bytes} bytes"))
            } else {
                unreachable(&*error)
            }
        })?;
        self.keep(sender);
        let header = |name| head.headers.get(name).cloned();
        let (content_type, date, server) = (header(CONTENT_TYPE), header(DATE), header(SERVER));
        Ok(Answer { status: head.status, content_type, date, server, body: body.to_bytes() })
    }

    async fn connect(&self) -> Result<Sender, SourceFault> {
        let address = (self.endpoint.host(), self.endpoint.port());
        let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let Some(connector) = &self.tls else { return handshake(stream).await };
        let configuration = connector.configure().map_err(|error| unreachable(&error))?;
        let stream = outgoing::shake_hands(configuration, self.endpoint.host(), stream);
        let stream = stream.await.map_err(SourceFault::Unreachable)?;
        handshake(stream).await
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle();
        // The newest last: the old ones go when it is too old as well.
        while let Some((sender, since)) = idle.pop() {
            if !sender.is_closed() && since.elapsed() < IDLE {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle();
        if idle.len() >= IDLE_CONNECTIONS {
            idle.remove(0);
        }
        idle.push((sender, Instant::now()));
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Sender, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connector(ca_file: Option<&Path>) -> Result<SslConnector, AdminSettingsError> {
    let read = |path: &Path| {
        let wrong = |problem| AdminSettingsError::CaFile { path: path.to_owned(), problem };
        outgoing::read_cas(path).map_err(wrong)
    };
    outgoing::connector(ca_file.map(read).transpose()?).map_err(AdminSettingsError::Tls)
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Sender, SourceFault> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    // It ends with the sender, or when the server closes it; whoever waits for an answer gets its error.
    tokio::spawn(connection);
    Ok(sender)
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> SourceFault {
    SourceFault::Unreachable(outgoing::with_causes(error))
}
