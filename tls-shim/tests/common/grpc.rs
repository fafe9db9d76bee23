//! An upstream that speaks HTTP/2 without TLS, as Kong's listener for gRPC does.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the body of the request as it arrives, then the trailer `grpc-status: 0` |
//! | `/refuse` | `grpc-status: 7` in the header, at once |
//! | `/broken` | a part of a body, and then a reset |
//! | `/hold` | a header, and then nothing |
//! | `/endless` | a body that does not end |

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was given up by the shim before its end, for this reason.
    Reset(String),
    /// Trailers came after its body.
    Trailers,
    /// So many bytes of an endless answer were sent before nobody took more, and then it was given up.
    Sent(usize),
}

pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    events: mpsc::UnboundedReceiver<Event>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    heads: Vec<http::request::Parts>,
    sent: usize,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (telling, events) = mpsc::unbounded_channel();
        let noting = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                noting.lock().unwrap().connections += 1;
                let (seen, telling) = (Arc::clone(&noting), telling.clone());
                let service = service_fn(move |request| {
                    let (seen, telling) = (Arc::clone(&seen), telling.clone());
                    async move { Ok::<_, Infallible>(answer(request, seen, telling)) }
                });
                tokio::spawn(
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, seen, events }
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    pub fn heads(&self) -> Vec<http::request::Parts> {
        self.seen.lock().unwrap().heads.clone()
    }

    /// How much of endless answers was sent.
    pub fn sent(&self) -> usize {
        self.seen.lock().unwrap().sent
    }

    /// What has happened so far.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }
}

type Answer = Response<Either<Channel<Bytes, io::Error>, Empty<Bytes>>>;

fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
    telling: mpsc::UnboundedSender<Event>,
) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    seen.lock().unwrap().heads.push(head);
    let (sender, channel) = Channel::new(1);
    let response = Response::builder().header("content-type", "application/grpc");
    match path.as_str() {
        "/refuse" => return response.header("grpc-status", "7").body(Either::Right(Empty::new())).unwrap(),
        "/echo" => drop(tokio::spawn(echo(body, sender, telling))),
        "/broken" => drop(tokio::spawn(broken(sender))),
        "/hold" => drop(tokio::spawn(hold(body, sender, telling))),
        "/endless" => drop(tokio::spawn(endless(sender, seen, telling))),
        other => panic!("{other}"),
    }
    response.body(Either::Left(channel)).unwrap()
}

async fn echo(
    mut body: Incoming,
    mut sender: Sender<Bytes, io::Error>,
    telling: mpsc::UnboundedSender<Event>,
) {
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return drop(telling.send(Event::Reset(format!("{error:?}")))),
        };
        if frame.is_trailers() {
            let _ = telling.send(Event::Trailers);
        }
        if let Ok(data) = frame.into_data()
            && sender.send_data(data).await.is_err()
        {
            return drop(telling.send(Event::Reset("nobody reads".into())));
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = sender.send_trailers(trailers).await;
}

async fn broken(mut sender: Sender<Bytes, io::Error>) {
    let _ = sender.send_data(Bytes::from_static(b"part")).await;
    sender.abort(io::Error::other("broken"));
}

async fn hold(mut body: Incoming, _sender: Sender<Bytes, io::Error>, telling: mpsc::UnboundedSender<Event>) {
    if let Some(Err(error)) = body.frame().await {
        let _ = telling.send(Event::Reset(format!("{error:?}")));
    }
}

async fn endless(
    mut sender: Sender<Bytes, io::Error>,
    seen: Arc<Mutex<Seen>>,
    telling: mpsc::UnboundedSender<Event>,
) {
    let part = Bytes::from(vec![0; 16 * 1024]);
    while sender.send_data(part.clone()).await.is_ok() {
        seen.lock().unwrap().sent += part.len();
    }
    let sent = seen.lock().unwrap().sent;
    let _ = telling.send(Event::Sent(sent));
}
