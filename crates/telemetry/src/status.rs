//! This knows the address where monitoring asks how the process fares: `/metrics`, `/healthz` and `/readyz`.
//!
//! It is answered from a thread of its own, so that there is a true answer also while the process itself has stalled.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::Pulse;

/// How many connections there may be at once; others wait.
const CONNECTIONS: usize = 16;

/// How long a connection may take, from its beginning to its end. Each is for one request.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// How large the head of a request may be.
const HEAD: usize = 16 * 1024;

/// How often an address that is in use is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// How long to wait before accepting again after a failure, such as having no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What the process knows of how it fares.
pub trait Report: Send + Sync + 'static {
    /// All metrics.
    fn registry(&self) -> &Registry;

    /// What has to be in order for the process to do its work, besides that it runs at all. It is called from another
    /// runtime than the process's own.
    fn readiness(&self) -> impl Future<Output = Vec<Check>> + Send;
}

/// One thing that has to be in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is, in a word.
    pub name: &'static str,
    /// Whether it is in order, or what is wrong.
    pub result: Result<(), String>,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("status address {address}: {error}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// An address that is about to be served.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    bound: Option<std::net::TcpListener>,
}

/// Answers for as long as this is kept.
#[derive(Debug)]
pub struct Status {
    _stop: oneshot::Sender<Infallible>,
}

impl Listener {
    /// Takes the address. While another process has it, it is tried again and again once it is served: when Kong reloads,
    /// that is the plugin server of before, which leaves soon; and who does the work must not fail for want of being
    /// watched.
    ///
    /// # Errors
    /// What else the system says of the address.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(%address, "the status address is in use, and is tried again until it is free");
                None
            }
            bound => Some(bound.map_err(|error| BindError { address, error })?),
        };
        Ok(Self { address, bound })
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// The system gives no more threads or descriptors.
    pub fn serve(self, pulse: Arc<Pulse>, report: Arc<impl Report>) -> io::Result<Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let asked = Arc::new(Asked { pulse, report });
        let server = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = run(self, &asked) => {}
                    _ = stopped => {}
                }
            });
        };
        thread::Builder::new().name("status".into()).spawn(server)?;
        Ok(Status { _stop: stop })
    }

    async fn listen(self) -> io::Result<TcpListener> {
        if let Some(bound) = self.bound {
            bound.set_nonblocking(true)?;
            return TcpListener::from_std(bound);
        }
        loop {
            match TcpListener::bind(self.address).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(TRY_AGAIN).await,
                bound => return bound,
            }
        }
    }
}

/// Who is asked.
struct Asked<R> {
    pulse: Arc<Pulse>,
    report: Arc<R>,
}

async fn run<R: Report>(listener: Listener, asked: &Arc<Asked<R>>) {
    let address = listener.address;
    let listener = match listener.listen().await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, %address, "the status address cannot be served"),
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "status is served");
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asked = Arc::clone(asked);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIME, connection(stream, &asked)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a status connection cannot be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn connection<R: Report>(stream: TcpStream, asked: &Asked<R>) -> hyper::Result<()> {
    let answer = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), asked).await)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer<R: Report>(method: &Method, path: &str, asked: &Asked<R>) -> Response<Full<Bytes>> {
    let is_known = matches!(path, "/metrics" | "/healthz" | "/readyz");
    if is_known && !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => metrics(asked.report.registry()),
        "/healthz" => checked(&[asked.alive()]),
        "/readyz" => match asked.alive() {
            // Then there is nobody to ask for the rest.
            stalled @ Check { result: Err(_), .. } => checked(&[stalled]),
            alive => checked(&[vec![alive], asked.report.readiness().await].concat()),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

impl<R> Asked<R> {
    fn alive(&self) -> Check {
        let result = if self.pulse.is_beating() { Ok(()) } else { Err("it has stalled".into()) };
        Check { name: "loop", result }
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut metrics = String::new();
    if prometheus_text::encode(&mut metrics, registry).is_err() {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down\n");
    }
    let mut response = text(StatusCode::OK, metrics);
    let content_type = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A line for each check, whatever the status.
fn checked(checks: &[Check]) -> Response<Full<Bytes>> {
    let line = |Check { name, result }: &Check| match result {
        Ok(()) => format!("{name}: ok\n"),
        Err(problem) => format!("{name}: {problem}\n"),
    };
    let status = match checks.iter().all(|check| check.result.is_ok()) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, checks.iter().map(line).collect::<String>())
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
