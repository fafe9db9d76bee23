//! This knows how a connection to Kong is made: to which address, by which TLS, and what is
//! said of the client before.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use hyper::service::Service;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use openssl::error::ErrorStack;
use openssl::ssl::SslConnector;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;
use tokio_util::either::Either;

use crate::file::{self, FileError};
use crate::proxy_protocol::{self, Addresses};
use crate::settings::{self, Settings, UpstreamTls};

/// The server name by which connections to Kong are told apart; none where it is of no matter to Kong.
pub(crate) type Sni = Option<Arc<str>>;

/// A connection to Kong, plain or by TLS.
pub(crate) type Stream = TokioIo<Either<TcpStream, SslStream<TcpStream>>>;

/// What a connection is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The way to one listener of Kong's.
pub(crate) struct Dial {
    target: Uri,
    connector: TowerToHyperService<HttpConnector>,
    tls: Option<Tls>,
    announce: Option<proxy_protocol::Version>,
    handshake: Duration,
}

/// On whose behalf a connection is made.
pub(crate) struct Caller {
    /// The server that the client named.
    pub(crate) name: Sni,
    pub(crate) addresses: Addresses,
}

/// How TLS towards Kong is done.
struct Tls {
    connector: SslConnector,
    /// The name that Kong's certificate has to bear.
    verify_name: String,
    /// Whether it has to bear the client's SNI instead, where there is one.
    verify_sni: bool,
}

/// Why Kong cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No TCP connection within the time.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// No handshake, or with somebody whose certificate is none of Kong's.
    #[error("no TLS: {0}")]
    Tls(String),
    /// No handshake within the time.
    #[error("no TLS: the handshake took too long")]
    Late,
    /// The other side did not choose the protocol by ALPN.
    #[error("no HTTP/2: set `http2` on the listener")]
    Http2,
}

impl From<ErrorStack> for DialError {
    fn from(error: ErrorStack) -> Self {
        Self::Tls(error.to_string())
    }
}

impl Dial {
    /// Prepares connections; none is made yet.
    ///
    /// # Errors
    /// The file with the CAs cannot be used.
    pub(crate) fn new(upstream: &settings::Upstream, settings: &Settings) -> Result<Self, FileError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(settings.time_limits.upstream_connect));
        connector.set_nodelay(true);
        let mut target = http::uri::Parts::default();
        // The connector knows TCP only.
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(upstream.address());
        target.path_and_query = Some(PathAndQuery::from_static("/"));
        let target = Uri::from_parts(target).expect("scheme, authority and path are a URI");
        let tls = settings.upstream_tls.clone().unwrap_or_default();
        let tls = upstream.tls.then(|| Tls::new(upstream, &tls)).transpose()?;
        let announce = settings.send_proxy_protocol;
        let handshake = settings.time_limits.upstream_handshake;
        Ok(Self { target, connector: TowerToHyperService::new(connector), tls, announce, handshake })
    }

    /// The scheme of requests over it.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// What tells a client's connections from those of others: the server that it named, where Kong is told of it.
    pub(crate) fn name(&self, caller: &Caller) -> Sni {
        self.tls.as_ref().and(caller.name.clone())
    }

    /// Whether Kong is told whose a connection is, so that no other client can have it.
    pub(crate) fn announces(&self) -> bool {
        self.announce.is_some()
    }

    /// Makes a connection, to whichever of the host's addresses answers first.
    ///
    /// # Errors
    /// See [`DialError`].
    pub(crate) async fn connect(&self, caller: &Caller, protocol: Protocol) -> Result<Stream, DialError> {
        let stream = self.connector.call(self.target.clone()).await;
        let mut stream = stream.map_err(|error| DialError::Connect(io::Error::other(error)))?.into_inner();
        if let Some(version) = self.announce {
            stream.write_all(&version.header(caller.addresses)).await.map_err(DialError::Connect)?;
        }
        let stream = match &self.tls {
            None => Either::Left(stream),
            Some(tls) => {
                let handshake = tls.handshake(stream, &caller.name, protocol);
                let done = timeout(self.handshake, handshake).await;
                Either::Right(done.unwrap_or_else(|_| Err(DialError::Late))?)
            }
        };
        Ok(TokioIo::new(stream))
    }
}

impl Tls {
    fn new(upstream: &settings::Upstream, tls: &UpstreamTls) -> Result<Self, FileError> {
        let connector = match &tls.ca {
            None => outgoing::connector(None)
                .map_err(|error| FileError::new("the system's CAs".as_ref(), error))?,
            Some(path) => file::read(path, |pem| {
                let cas = outgoing::parse_cas(pem.as_bytes())?;
                outgoing::connector(Some(cas)).map_err(|error| error.to_string())
            })?,
        };
        let verify_name = tls.verify_name.clone().unwrap_or_else(|| upstream.host().to_owned());
        Ok(Self { connector, verify_name, verify_sni: tls.verify_sni })
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        name: &Sni,
        protocol: Protocol,
    ) -> Result<SslStream<TcpStream>, DialError> {
        let configuration = self.connector.configure()?.use_server_name_indication(false);
        let verified = match name {
            Some(name) if self.verify_sni => name,
            _ => self.verify_name.as_str(),
        };
        let mut ssl = configuration.into_ssl(verified)?;
        if let Some(name) = name {
            ssl.set_hostname(name)?;
        }
        ssl.set_alpn_protos(match protocol {
            Protocol::Http1 => b"\x08http/1.1",
            Protocol::Http2 => b"\x02h2",
        })?;
        let mut stream = SslStream::new(ssl, stream)?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            let found = stream.ssl().verify_result();
            return Err(DialError::Tls(match found.as_raw() {
                0 => error.to_string(),
                _ => format!("the certificate of {verified:?}: {}", found.error_string()),
            }));
        }
        if protocol == Protocol::Http2 && stream.ssl().selected_alpn_protocol() != Some(b"h2") {
            return Err(DialError::Http2);
        }
        Ok(stream)
    }
}
