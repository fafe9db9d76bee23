//! This knows one client's connection: a handshake, what it told, and then requests until either side ends it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use client_cert::ProofKey;
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, Running};
use crate::answer::Answer;
use crate::handoff::HandOff;
use crate::headers::Way;
use crate::limits;
use crate::metrics::{Failure, Metrics};
use crate::places::Places;
use crate::plugin_server::PluginServer;
use crate::proxy::{Client, proxy};
use crate::proxy_protocol::{self, Addresses, HeaderError};
use crate::record::{Connected, Ledger, Observers, Record, Side};
use crate::settings::{Fronts, Limits, TimeLimits};
use crate::stall::Stall;
use crate::tls::{Handshake, Tls};
use crate::tunnel::After;
use crate::upstream::{Kong, Upstream};

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
) {
    let _open = shim.metrics.open();
    let greeted = greet(stream, peer, port, &shim);
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
    shim.metrics.connected(&handshake);
    let ledger = shim.observers.as_ref().map(|observers| {
        Arc::new(Ledger::new(Connected::new(&addresses, &handshake), Arc::clone(observers)))
    });
    let Handshake { server_name, asked, presented, resumed, http2, .. } = handshake;
    let has_presented = presented.is_some();
    let sni = server_name.as_str();
    tracing::debug!(%peer, sni, asked, presented = has_presented, resumed, http2, "connected");

    let hand_off = presented
        .map(|presented| HandOff::new(presented, server_name.as_str(), Arc::clone(&shim.proof_key)))
        .transpose();
    let hand_off = match hand_off {
        Ok(hand_off) => hand_off,
        // Never on without it: the client would pass for one that has no certificate.
        Err(error) => return tracing::warn!(%peer, %error, "closed a connection"),
    };
    let upstream = Upstream::new(Arc::clone(&shim.kong), &server_name, addresses);
    let way = Way { client: peer.ip(), port: addresses.server.port() };
    let (times, limits) = (shim.times, shim.limits);
    let client = Arc::new(Client {
        way,
        hand_off,
        asked,
        plugin_server: shim.plugin_server.clone(),
        after: After::default(),
        upstream,
        header_fields: limits.header_fields,
        answer_limit: times.upstream_answer,
    });

    let activity = Arc::new(Activity::default());
    let running = Arc::clone(&activity);
    let asking = Arc::clone(&client);
    let recording = ledger.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (client, shim, running) = (Arc::clone(&asking), Arc::clone(&shim), running.begin());
        let mut record = Record::begin(recording.as_ref(), &request);
        async move {
            let answer = proxy(request, &client, &mut record, |name| shim.tls.asks(name)).await;
            Ok::<_, Infallible>(answer.map(|body| Counted { body, record, _running: running }))
        }
    });
    let io = TokioIo::new(stream);
    let served = if http2 {
        let connection = http2_builder(&limits).serve_connection(io, service);
        let leave = http2::Connection::graceful_shutdown;
        talk(connection, leave, &activity, times.idle, ledger.as_deref(), &drain).await
    } else {
        let connection = http1_builder(&times, &limits).serve_connection(io, service).with_upgrades();
        let leave = http1::UpgradeableConnection::graceful_shutdown;
        talk(connection, leave, &activity, times.idle, ledger.as_deref(), &drain).await
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection broke");
    }
    // A tunnel has no end of its own that `drain` could ask for: whoever drains cuts it off.
    match client.after.run(times.tunnel_idle).await {
        Ok(()) => tracing::debug!(%peer, "a connection ended"),
        Err(error) => tracing::debug!(%peer, %error, "a tunnel broke"),
    }
}

/// Hears who connects from where, and does the handshake.
async fn greet(
    mut stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    shim: &Shim,
) -> Result<(SslStream<Stall<TcpStream>>, Addresses, Handshake), GreetError> {
    let direct = Addresses { client: peer, server: (stream.local_addr()?.ip(), port).into() };
    let addresses = match &shim.fronts {
        None => direct,
        Some(fronts) if !fronts.contain(peer.ip()) => return Err(GreetError::NoFront),
        Some(_) => proxy_protocol::read(&mut stream).await?.unwrap_or(direct),
    };
    let (stream, handshake) = shim.tls.accept(Stall::new(stream, shim.times.stall)).await?;
    Ok((stream, addresses, handshake))
}

/// Drives a connection to its end, which is asked for (`leave`) by `drain` or by a client that sends no request for so
/// long (`idle`).
async fn talk<C>(
    connection: C,
    leave: fn(Pin<&mut C>),
    activity: &Activity,
    idle: Duration,
    ledger: Option<&Ledger>,
    drain: &CancellationToken,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain.cancelled() => {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = activity.first() => {}
                () = sleep(limits::FIRST_REQUEST) => {}
            }
            leave(connection.as_mut());
            // Whoever drains sets the limit.
            return connection.await;
        }
        () = activity.idle(idle) => leave(connection.as_mut()),
    }
    // A request that came just now still gets its answer, if that is quick: no client may rely on a connection that was
    // idle for so long.
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(limits::LEAVE) => {
            if let Some(ledger) = ledger {
                ledger.cut_off();
            }
            Ok(())
        }
    }
}

/// Waits until a client has had its time since the shim was told to end. Whoever takes over has its listeners, but not the
/// connections that were accepted before: they would be lost.
async fn too_late(drain: &CancellationToken) {
    drain.cancelled().await;
    sleep(limits::FIRST_REQUEST).await;
}

fn http1_builder(times: &TimeLimits, limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(times.header)
        .max_headers(limits.header_fields)
        .max_header_size(limits.header_bytes);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
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
struct Counted {
    body: Answer,
    record: Record,
    _running: Running,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = <Answer as Body>::Error;

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

impl Drop for Counted {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_header_has_to_come_in_time() {
        let (mut client, stream) = duplex(1024);
        let times = TimeLimits { header: Duration::from_secs(40), ..TimeLimits::default() };
        let service = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let served = tokio::spawn(
            http1_builder(&times, &Limits::default()).serve_connection(TokioIo::new(stream), service),
        );
        let start = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        // Never silent for long, and never done.
        let slow = tokio::spawn(async move {
            while client.write_all(b"X-A: 1\r\n").await.is_ok() {
                sleep(Duration::from_secs(10)).await;
            }
            client.read_to_end(&mut Vec::new()).await
        });
        assert!(served.await.unwrap().unwrap_err().is_timeout());
        assert_eq!(start.elapsed(), times.header);
        slow.await.unwrap().unwrap();
    }
}
