//! This knows one client's connection: a handshake, what it told, and then requests until either side ends it.

use std::convert::{Infallible, identity};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use client_cert::ProofKey;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Running};
use crate::answer::Answer;
use crate::apart::Apart;
use crate::handoff::HandOff;
use crate::headers::Way;
use crate::limits;
use crate::lull::{Attended, Line, Lulls};
use crate::metrics::{Failure, Metrics};
use crate::places::{Place, Places};
use crate::plugin_server::PluginServer;
use crate::proxy::{Client, proxy};
use crate::proxy_protocol::{self, Addresses, HeaderError};
use crate::record::{Connected, Ledger, Observers, Record, Side};
use crate::settings::{Fronts, Limits, TimeLimits};
use crate::stall::Stall;
use crate::tls::{Handshake, Tls};
use crate::tunnel::After;
use crate::untaken::{Parted, Streams};
use crate::upstream::{Kong, Upstream};

/// What a client sends and is sent.
type Stream = SslStream<Stall<TcpStream>>;

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Shim {
    pub(crate) tls: Arc<Tls>,
    pub(crate) proof_key: Arc<ProofKey>,
    pub(crate) kong: Arc<Kong>,
    /// Whether whoever decides about certificates is there. None: nobody looks.
    pub(crate) plugin_server: Option<PluginServer>,
    /// From where clients come by the PROXY protocol, and then only by it.
    pub(crate) fronts: Option<Fronts>,
    /// Who is told of each request, if anybody.
    pub(crate) observers: Option<Arc<Observers>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) times: TimeLimits,
    pub(crate) limits: Limits,
    pub(crate) places: Arc<Places>,
}

/// Why a connection comes to no request.
#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("nobody may connect from there without a front that speaks the PROXY protocol")]
    NoFront,
    #[error(transparent)]
    Proxy(#[from] HeaderError),
    #[error(transparent)]
    Tls(#[from] openssl::ssl::Error),
}

impl GreetError {
    fn failure(&self) -> Failure {
        match self {
            Self::NoFront | Self::Proxy(_) => Failure::Front,
            Self::Io(_) => Failure::Left,
            // The client has gone, or its connection.
            Self::Tls(error) if error.io_error().is_some() || error.ssl_error().is_none() => Failure::Left,
            Self::Tls(_) => Failure::Tls,
        }
    }
}

/// Serves one client until it leaves, is idle for too long, or `drain` says that the shim ends.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    shim: Arc<Shim>,
    drain: CancellationToken,
    _place: Place,
) {
    let _open = shim.metrics.open();
    // Boxed, so that its room is not kept for as long as the connection lives.
    let greeted = Box::pin(greet(stream, peer, port, &shim));
    let (stream, addresses, handshake) = tokio::select! {
        // It has sent no request yet, and is not going to.
        () = too_late(&drain) => return,
        greeted = timeout(shim.times.handshake, greeted) => match greeted {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                shim.metrics.failed(error.failure());
                return tracing::debug!(%peer, %error, "a handshake failed");
            }
            Err(_) => {
                shim.metrics.failed(Failure::Late);
                return tracing::debug!(%peer, "a handshake took too long");
            }
        },
    };
    let peer = addresses.client;
    let http2 = handshake.http2;
    let Some((client, ledger)) = prepare(handshake, addresses, &shim) else { return };
    let activity = Arc::new(Activity::default());
    let connection = Connection { shim, activity, ledger, drain };
    let served = if http2 {
        Box::pin(connection.http2(stream, connection.service(&client, Parted::of))).await
    } else {
        connection.http1(stream, connection.service(&client, identity)).await
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection broke");
    }
    // A tunnel has no end of its own that `drain` could ask for: whoever drains cuts it off.
    match Box::pin(client.after.run(connection.shim.times.tunnel_idle)).await {
        Ok(()) => tracing::debug!(%peer, "a connection ended"),
        Err(error) => tracing::debug!(%peer, %error, "a tunnel broke"),
    }
}

/// What all requests of a connection have in common; none where there can be no request.
fn prepare(
    handshake: Handshake,
    addresses: Addresses,
    shim: &Shim,
) -> Option<(Arc<Client>, Option<Arc<Ledger>>)> {
    shim.metrics.connected(&handshake);
    let ledger = shim.observers.as_ref().map(|observers| {
        Arc::new(Ledger::new(Connected::new(&addresses, &handshake), Arc::clone(observers)))
    });
    let Handshake { server_name, asked, presented, resumed, http2, .. } = handshake;
    let peer = addresses.client;
    let has_presented = presented.is_some();
    let sni = server_name.as_str();
    tracing::debug!(%peer, sni, asked, presented = has_presented, resumed, http2, "connected");

    let hand_off = presented
        .map(|presented| HandOff::new(&presented, server_name.as_str(), Arc::clone(&shim.proof_key)))
        .transpose();
    let hand_off = match hand_off {
        Ok(hand_off) => hand_off,
        Err(error) => {
            // Never on without it: the client would pass for one that has no certificate.
            tracing::warn!(%peer, %error, "closed a connection");
            return None;
        }
    };
    let client = Client {
        way: Way { client: peer.ip(), port: addresses.server.port() },
        hand_off,
        asked,
        plugin_server: shim.plugin_server.clone(),
        after: After::default(),
        upstream: Upstream::new(Arc::clone(&shim.kong), &server_name, addresses),
        header_fields: shim.limits.header_fields,
        answer_limit: shim.times.upstream_answer,
    };
    Some((Arc::new(client), ledger))
}

/// Hears who connects from where, and does the handshake.
async fn greet(
    mut stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    shim: &Shim,
) -> Result<(Stream, Addresses, Handshake), GreetError> {
    let direct = Addresses { client: peer, server: (stream.local_addr()?.ip(), port).into() };
    let addresses = match &shim.fronts {
        None => direct,
        Some(fronts) if !fronts.contain(peer.ip()) => return Err(GreetError::NoFront),
        Some(_) => proxy_protocol::read(&mut stream).await?.unwrap_or(direct),
    };
    let (stream, handshake) = shim.tls.accept(Stall::new(stream, shim.times.stall)).await?;
    Ok((stream, addresses, handshake))
}

/// A connection after its handshake, apart from its stream.
struct Connection {
    shim: Arc<Shim>,
    activity: Arc<Activity>,
    ledger: Option<Arc<Ledger>>,
    drain: CancellationToken,
}

impl Connection {
    /// What answers the requests of this client, with such bodies.
    fn service<B: Body<Data = Bytes> + Send + Unpin + 'static>(
        &self,
        client: &Arc<Client>,
        body: fn(Answer) -> B,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Counted<B>>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + use<B> {
        let (client, shim) = (Arc::clone(client), Arc::clone(&self.shim));
        let (activity, ledger) = (Arc::clone(&self.activity), self.ledger.clone());
        service_fn(move |request: Request<Incoming>| {
            let (client, shim, running) = (Arc::clone(&client), Arc::clone(&shim), activity.begin());
            let mut record = Record::begin(ledger.as_ref(), &request);
            async move {
                let answer = proxy(request, &client, &mut record, |name| shim.tls.asks(name)).await;
                Ok::<_, Infallible>(answer.map(|answer| Counted {
                    body: body(answer),
                    record,
                    _running: running,
                }))
            }
        })
    }

    /// Drives a connection of HTTP/2 to its end.
    async fn http2<S>(&self, stream: Stream, service: S) -> hyper::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response<Counted<Parted>>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        // Boxed: hyper moves what answers a request several times before it runs, and it is large.
        let service = service_fn(move |request| Box::pin(service.call(request)));
        let connection = http2_builder(&self.shim.times, &self.shim.limits)
            .serve_connection(TokioIo::new(stream), service);
        self.talk(Attended::new(connection, None), http2::Connection::graceful_shutdown).await.map(drop)
    }

    /// Drives a connection of HTTP/1.1 to its end. While it rests, only its stream is left of it.
    async fn http1<S>(&self, mut stream: Stream, mut service: S) -> hyper::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response<Counted<Answer>>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let lulls = Lulls::default();
        let mut read = Bytes::new();
        loop {
            let line = TokioIo::new(Line::new(read, stream, lulls.clone()));
            let builder = http1_builder(&self.shim.times, &self.shim.limits, &lulls);
            let connection = builder.serve_connection(line, service).with_upgrades();
            drop(builder);
            let attended = Attended::new(connection, Some(lulls.clone()));
            // Boxed, so that its room is given back as well.
            let resting =
                Box::pin(self.talk(attended, http1::UpgradeableConnection::graceful_shutdown)).await?;
            let Some(parts) = resting.and_then(|resting| lulls.take_apart(resting.into_connection())) else {
                return Ok(());
            };
            (read, service) = (parts.read_buf, parts.service);
            stream = parts.io.into_inner().into_stream();
            tracing::debug!(read = read.len(), "a connection rests");
            if let Some(until) = lulls.until().filter(|_| read.is_empty()) {
                self.rest(&mut stream, until).await;
            }
        }
    }

    /// Waits for something to be done about a connection that rests: to read, to say that time is up, or to leave. Nothing is
    /// taken from the stream, nor judged: hyper finds it as if it had been there all along.
    async fn rest(&self, stream: &mut Stream, until: Instant) {
        let mut byte = [0];
        let readable = poll_fn(|cx| Pin::new(&mut *stream).poll_peek(cx, &mut byte));
        let until = until.min(self.activity.idle_from(self.shim.times.idle));
        tokio::select! {
            _ = readable => {}
            () = self.drain.cancelled() => {}
            () = sleep_until(until) => {}
        }
    }

    /// Drives a connection to its end, which is asked for (`leave`) by `drain` or by a client that sends no request for too
    /// long; or until it rests, and gives it back.
    async fn talk<C>(
        &self,
        mut attended: Attended<C>,
        leave: fn(Pin<&mut C>),
    ) -> hyper::Result<Option<Attended<C>>>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let over = pin!(async {
            tokio::select! {
                () = self.drain.cancelled() => true,
                () = self.activity.idle(self.shim.times.idle) => false,
            }
        });
        let drains = tokio::select! {
            // Whether it rests is known only after it.
            biased;
            ended = &mut attended => return match ended {
                Some(ended) => ended.map(|()| None),
                None => Ok(Some(attended)),
            },
            drains = Apart::new(over) => drains,
        };
        attended.stay();
        if drains {
            tokio::select! {
                ended = &mut attended => return ended.transpose().map(|_| None),
                () = self.activity.first() => {}
                () = sleep(limits::FIRST_REQUEST) => {}
            }
            leave(attended.connection());
            // Whoever drains sets the limit.
            return attended.await.transpose().map(|_| None);
        }
        leave(attended.connection());
        // A request that came just now still gets its answer, if that is quick: no client may rely on a connection that was
        // idle for so long.
        tokio::select! {
            ended = attended => ended.transpose().map(|_| None),
            () = sleep(limits::LEAVE) => {
                if let Some(ledger) = &self.ledger {
                    ledger.cut_off();
                }
                Ok(None)
            }
        }
    }
}

/// Waits until a client has had its time since the shim was told to end. Whoever takes over has its listeners, but not the
/// connections that were accepted before: they would be lost.
async fn too_late(drain: &CancellationToken) {
    drain.cancelled().await;
    sleep(limits::FIRST_REQUEST).await;
}

fn http1_builder(times: &TimeLimits, limits: &Limits, lulls: &Lulls) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(lulls.clone())
        .header_read_timeout(times.header)
        .max_headers(limits.header_fields)
        .max_header_size(limits.header_bytes);
    builder
}

fn http2_builder(times: &TimeLimits, limits: &Limits) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams { limit: times.stall });
    let (interval, patience) = limits::PING;
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .max_concurrent_streams(number(limits.streams))
        .max_header_list_size(number(limits.header_bytes));
    builder
}

/// In the form of HTTP/2's settings.
fn number(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// The body of an answer, which keeps its request counted as running, and its record open, until it was sent or given up.
struct Counted<B: Body> {
    body: B,
    record: Record,
    _running: Running,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => self.record.passed_down(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(Some(Err(_))) => self.record.broke(Side::Upstream),
            Poll::Ready(None) => self.record.whole(),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> Drop for Counted<B> {
    fn drop(&mut self) {
        // Whoever sends it does not ask for more than there is.
        if self.body.is_end_stream() || self.record.is_head() {
            self.record.whole();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use http_body_util::Empty;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// The bytes of the future that a function gives.
    fn size<A, B, C, D, E, F, Fut>(_: impl FnOnce(A, B, C, D, E, F) -> Fut) -> usize {
        size_of::<Fut>()
    }

    #[test]
    fn a_connection_that_rests_takes_little() {
        assert!(size(serve) <= 1024, "{}", size(serve));
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_has_to_come_in_time() {
        let (mut client, stream) = duplex(1024);
        let times = TimeLimits { header: Duration::from_secs(40), ..TimeLimits::default() };
        let service = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let lulls = Lulls::default();
        let builder = http1_builder(&times, &Limits::default(), &lulls);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut attended = Attended::new(connection, Some(lulls));
        attended.stay();
        let served = tokio::spawn(attended);
        let start = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        // Never silent for long, and never done.
        let slow = tokio::spawn(async move {
            while client.write_all(b"X-A: 1\r\n").await.is_ok() {
                sleep(Duration::from_secs(10)).await;
            }
            client.read_to_end(&mut Vec::new()).await
        });
        assert!(served.await.unwrap().unwrap().unwrap_err().is_timeout());
        assert_eq!(start.elapsed(), times.header);
        slow.await.unwrap().unwrap();
    }
}
