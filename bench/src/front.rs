//! This knows how to connect to a TLS front, or to Kong's plain port, and to ask it for something.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Uri, Version as HttpVersion};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslSession, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::handoff::Clients;
use crate::{Http, To, Version};

/// What went wrong: a load counts only if nothing did.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The last session that a server gave.
type Session = Arc<Mutex<Option<SslSession>>>;

/// A front, and how to come to it.
#[derive(Clone)]
pub(crate) struct Front {
    address: SocketAddr,
    context: SslContext,
    session: Session,
    sni: String,
    http: Http,
    /// Whether there is no TLS.
    is_plain: bool,
    asked: Asked,
}

/// What is asked for.
#[derive(Clone)]
struct Asked {
    host: HeaderValue,
    targets: Arc<[Uri]>,
    next: Arc<AtomicUsize>,
    /// Whose certificates go with the requests, where nobody else hands them on.
    clients: Option<Arc<Clients>>,
}

impl Asked {
    /// The targets come in turn.
    fn next(&self) -> Uri {
        self.targets[self.next.fetch_add(1, Ordering::Relaxed) % self.targets.len()].clone()
    }
}

/// A connection to it.
pub(crate) struct Connection {
    sender: Sender,
    /// Whether it resumed an earlier session.
    pub(crate) resumed: bool,
    asked: Asked,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Front {
    pub(crate) fn new(to: &To) -> Result<Self, Error> {
        let session = Session::default();
        let mut builder = SslContextBuilder::new(SslMethod::tls_client())?;
        let version = match to.tls {
            Version::Tls12 => SslVersion::TLS1_2,
            Version::Tls13 => SslVersion::TLS1_3,
        };
        builder.set_min_proto_version(Some(version))?;
        builder.set_max_proto_version(Some(version))?;
        // The server is ours, and who it is is not what is measured.
        builder.set_verify(SslVerifyMode::NONE);
        // In TLS 1.2 the curve of the server's certificate must be among them (RFC 8422, section 5.1).
        builder.set_groups_list("X25519:P-256")?;
        if let (Some(cert), Some(key)) = (&to.cert, &to.key) {
            builder.set_certificate_chain_file(cert)?;
            builder.set_private_key_file(key, SslFiletype::PEM)?;
        }
        builder.set_alpn_protos(match to.http {
            Http::Http1 => b"\x08http/1.1",
            Http::Http2 => b"\x02h2",
        })?;
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let keep = Arc::clone(&session);
        builder.set_new_session_callback(move |_, session| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        });
        let target = |path: &str| match to.http {
            Http::Http1 => path.parse::<Uri>(),
            Http::Http2 => format!("https://{}{path}", to.sni).parse(),
        };
        let targets = match to.paths {
            None => vec![target(&to.path)?],
            Some(count) => {
                (0..count).map(|number| target(&format!("/{number}/"))).collect::<Result<_, _>>()?
            }
        };
        let clients = match (&to.handoff_key, to.certificates) {
            (None, _) => None,
            (Some(key), None) => {
                let cert = to.cert.as_deref().ok_or("--handoff-key needs --cert")?;
                Some(Clients::one(key, cert, &to.sni)?)
            }
            (Some(key), Some(count)) => {
                let (ca, ca_key) =
                    to.ca.as_deref().zip(to.ca_key.as_deref()).ok_or("--certificates needs a CA")?;
                Some(Clients::many(key, count, ca, ca_key, &to.sni)?)
            }
        };
        let asked = Asked {
            host: to.sni.parse()?,
            targets: targets.into(),
            next: Arc::default(),
            clients: clients.map(Arc::new),
        };
        Ok(Self {
            address: to.connect,
            context: builder.build(),
            session,
            sni: to.sni.clone(),
            http: to.http,
            is_plain: to.plain,
            asked,
        })
    }

    /// Connects; with `resume`, by the last session that was given, where there is one.
    pub(crate) async fn connect(&self, resume: bool) -> Result<Connection, Error> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        if self.is_plain {
            let sender = self.speak(TokioIo::new(stream)).await?;
            return Ok(Connection { sender, resumed: false, asked: self.asked.clone() });
        }
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_hostname(&self.sni)?;
        if resume {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(session) = session {
                resume_by(&mut ssl, &session)?;
            }
        }
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).connect().await?;
        let resumed = stream.ssl().session_reused();
        let sender = self.speak(TokioIo::new(stream)).await?;
        Ok(Connection { sender, resumed, asked: self.asked.clone() })
    }

    async fn speak(&self, io: impl Read + Write + Send + Unpin + 'static) -> Result<Sender, Error> {
        Ok(match self.http {
            Http::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Http::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(16 << 20)
                    .handshake(io)
                    .await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        })
    }
}

/// A session counts for a connection only in the context that it came from, which is the same here.
#[allow(unsafe_code, reason = "the binding cannot know which context a session came from")]
fn resume_by(ssl: &mut Ssl, session: &SslSession) -> Result<(), Error> {
    // SAFETY: the session comes from the only context that there is.
    unsafe { ssl.set_session(session) }.map_err(Into::into)
}

impl Connection {
    /// One that shares this connection, for another request at the same time. HTTP/2 only.
    pub(crate) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                resumed: self.resumed,
                asked: self.asked.clone(),
            }),
        }
    }

    /// Asks once, and gives the length of the answer's body once all of it is there.
    pub(crate) async fn ask(&mut self, body: Bytes) -> Result<u64, Error> {
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = self.asked.next();
        if let Some(clients) = &self.asked.clients {
            clients.put(request.headers_mut())?;
        }
        if has_body {
            *request.method_mut() = http::Method::POST;
        }
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                request.headers_mut().insert(HOST, self.asked.host.clone());
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                *request.version_mut() = HttpVersion::HTTP_2;
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        if response.status() != 200 {
            return Err(format!("status {}", response.status()).into());
        }
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok(length)
    }
}
