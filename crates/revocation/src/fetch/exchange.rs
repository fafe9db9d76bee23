//! This knows one request and its answer: by which way, through TLS or a proxy, and what bounds the answer in size.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslVerifyMode};
use outgoing::with_causes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::servers::Place;
use super::url::{Host, Server, Target, check_addresses};
use super::{Options, Query, Settings};
use crate::Trouble;

/// The most that a head may have, in bytes: what lies beyond it breaks the connection off. One that drips in is read anew
/// with every byte, so that its length counts twice.
const MAX_HEAD: usize = 16 * 1024;

/// After this time without a connection to one address of a name, another one is tried beside it (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// So many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// What came back.
pub(super) enum Reply {
    /// All of the body that came with status 200.
    Body(Bytes),
    /// It is elsewhere.
    Elsewhere { status: StatusCode, location: String },
}

/// What a way to a server consists of.
pub(super) struct Way<'a> {
    pub(super) options: &'a Options,
    pub(super) settings: &'a Settings,
    pub(super) connector: &'a SslConnector,
}

impl Way<'_> {
    /// Asks once.
    pub(super) async fn ask(
        &self,
        target: &Target,
        query: &Query<'_>,
        place: &Arc<Place>,
    ) -> Result<Reply, Trouble> {
        let server = &target.server;
        let path = Uri::from(target.path.clone());
        match self.settings.proxy(server.tls) {
            None => {
                let stream = self.connect(server, place).await?;
                self.ask_over(stream, server, path, query).await
            }
            Some((host, port)) => {
                if !self.options.allow_private {
                    server.check()?;
                }
                let stream = connect_to(look_up(host.clone(), *port, place).await?).await?;
                if server.tls {
                    return self.ask_over(tunnel(stream, server).await?, server, path, query).await;
                }
                self.ask_over(stream, server, server.absolute(&target.path), query).await
            }
        }
    }

    /// Connects to one of the server's addresses, each of which has been checked: a second look-up could have another
    /// answer.
    async fn connect(&self, server: &Server, place: &Arc<Place>) -> Result<TcpStream, Trouble> {
        let addresses = match &server.host {
            Host::Address(address) => vec![SocketAddr::new(*address, server.port)],
            Host::Name(name) => look_up(name.clone(), server.port, place).await?,
        };
        if !self.options.allow_private {
            check_addresses(&addresses)?;
        }
        connect_to(addresses).await
    }

    async fn ask_over<S>(
        &self,
        stream: S,
        server: &Server,
        uri: Uri,
        query: &Query<'_>,
    ) -> Result<Reply, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = request(server, uri, query);
        if !server.tls {
            return exchange(stream, request, query.max_bytes).await;
        }
        let mut configuration = self.connector.configure().map_err(|error| unreachable(&error))?;
        if !self.settings.ssl_verify {
            configuration.set_verify(SslVerifyMode::NONE);
        }
        let stream = outgoing::shake_hands(configuration, &server.host.plain(), stream).await;
        exchange(stream.map_err(Trouble::Unreachable)?, request, query.max_bytes).await
    }
}

/// The addresses of a name. The resolver cannot be told to stop, so the place stays taken until it has: a resolver that hangs
/// must not be asked by ever more threads.
async fn look_up(host: String, port: u16, place: &Arc<Place>) -> Result<Vec<SocketAddr>, Trouble> {
    let place = Arc::clone(place);
    let looked_up = tokio::task::spawn_blocking(move || {
        let _place = place;
        std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port)).map(Vec::from_iter)
    });
    let addresses = looked_up.await.map_err(|error| unreachable(&error))?;
    addresses.map_err(|error| unreachable(&error))
}

/// Connects to whichever of these addresses answers first.
async fn connect_to(addresses: Vec<SocketAddr>) -> Result<TcpStream, Trouble> {
    let mut addresses = addresses.into_iter().take(MAX_ADDRESSES);
    let mut attempts = JoinSet::new();
    let mut problem = "the name has no address".to_owned();
    loop {
        let is_last = match addresses.next() {
            Some(address) => {
                attempts.spawn(async move {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    std::io::Result::Ok(stream)
                });
                addresses.len() == 0
            }
            None => true,
        };
        let ended = if is_last {
            attempts.join_next().await
        } else {
            match tokio::time::timeout(HEAD_START, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => problem = error.to_string(),
            Some(Err(error)) => problem = error.to_string(),
            None if is_last => return Err(Trouble::Unreachable(problem)),
            None => {}
        }
    }
}

/// Has a proxy connect to the server (RFC 9110, section 9.3.6).
async fn tunnel(
    stream: TcpStream,
    server: &Server,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Trouble> {
    let refused = |problem: String| Trouble::Unreachable(format!("the proxy: {problem}"));
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from(server.authority());
    let host = HeaderValue::from_str(server.authority().as_str()).expect("an authority is printable");
    request.headers_mut().insert(HOST, host);
    let mut connection = Connection::new(stream).await?;
    let response = connection.send(request).await.map_err(|error| refused(with_causes(&error)))?;
    if !response.status().is_success() {
        return Err(refused(format!("it answered with status {}", response.status().as_u16())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| refused(with_causes(&error)))?;
    Ok(TokioIo::new(upgraded))
}

fn request(server: &Server, uri: Uri, query: &Query<'_>) -> Request<Full<Bytes>> {
    let (method, body, media_type) = match &query.post {
        Some((body, media_type)) => (Method::POST, body.clone(), Some(*media_type)),
        None => (Method::GET, Bytes::new(), None),
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, server.host_header());
    headers.insert(USER_AGENT, HeaderValue::from_static("kong-mtls-auth"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(media_type) = media_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    request
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, max_bytes: usize) -> Result<Reply, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = Connection::new(stream).await?;
    let response = connection.send(request).await.map_err(|error| unreachable(&error))?;
    let (head, body) = response.into_parts();
    if head.status.is_redirection() && head.headers.contains_key(LOCATION) {
        let location = only(&head.headers)?;
        return Ok(Reply::Elsewhere { status: head.status, location });
    }
    if head.status != StatusCode::OK {
        return Err(Trouble::HttpStatus(head.status.as_u16()));
    }
    // None was asked for.
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err(Trouble::Malformed("it has a Content-Encoding".into()));
    }
    read(body, max_bytes).await.map(Reply::Body)
}

fn only(headers: &HeaderMap) -> Result<String, Trouble> {
    let mut all = headers.get_all(LOCATION).iter();
    match (all.next().map(HeaderValue::to_str), all.next()) {
        (Some(Ok(location)), None) => Ok(location.to_owned()),
        _ => Err(Trouble::Malformed("its Location is none".into())),
    }
}

/// Reads all of a body, of as many bytes at most. What it says of its length may only refuse it.
async fn read(mut body: Incoming, max_bytes: usize) -> Result<Bytes, Trouble> {
    let too_long = Trouble::TooLong(max_bytes);
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_long);
    }
    // Copied together: a body in chunks of one byte each would take many times its length if they were kept as they came.
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > max_bytes - bytes.len() {
            return Err(too_long);
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes.freeze())
}

/// A connection for one request. It ends with this at the latest, whatever the other side does.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<hyper::Result<()>>,
}

impl Connection {
    async fn new<S>(stream: S) -> Result<Self, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| unreachable(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(connection.with_upgrades());
        Ok(Self { sender, _driver: driver })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Trouble {
    Trouble::Unreachable(with_causes(error))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// One that no connection gets through to: its only place is taken.
    async fn silent() -> (TcpListener, TcpStream) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let taken = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener, taken)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_leads_to_the_next_one() {
        let (silent, _taken) = silent().await;
        let silent = silent.local_addr().unwrap();
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let within = |addresses: &[SocketAddr]| {
            tokio::time::timeout(Duration::from_secs(1), connect_to(addresses.to_vec()))
        };
        assert!(within(&[silent]).await.is_err(), "nothing comes of it");
        let good = good.local_addr().unwrap();
        for addresses in [&[good][..], &[refusing, good], &[silent, good], &[silent, refusing, silent, good]]
        {
            let stream = within(addresses).await.expect("in time").unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good, "{addresses:?}");
        }
        for addresses in [&[][..], &[refusing], &[refusing, refusing]] {
            assert_eq!(within(addresses).await.expect("in time").unwrap_err().code(), "unreachable");
        }
        assert!(within(&[refusing, silent]).await.is_err(), "it may answer yet");
    }
}
