//! What the tests need around a double: a scripted plugin server, an upstream and an HTTP client.

#![allow(dead_code, reason = "each test crate uses its own part")]

pub(crate) mod either;
pub(crate) mod protobuf;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kong_double::{
    Protocol, Value,
    pack::{MapOrder, pack, unpack},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    sync::oneshot,
    task::{AbortHandle, JoinHandle},
};

/// Whatever a test waits for comes well within this time, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The `-dump` output of a plugin that takes any config and speaks MsgPack:1.
pub(crate) fn plugin_info(name: &str, phases: &[&str]) -> serde_json::Value {
    plugin_info_of(Protocol::MsgPack, name, phases)
}

/// The same for either protocol.
pub(crate) fn plugin_info_of(protocol: Protocol, name: &str, phases: &[&str]) -> serde_json::Value {
    json!({"Protocol": protocol.name(), "Plugins": [{"Name": name, "Version": "0.1", "Priority": 1, "Phases": phases}]})
}

/// A call as it arrived at the scripted server.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Number of the connection, from 1.
    pub(crate) conn: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) id: f64,
    pub(crate) method: String,
    pub(crate) arg: Value,
}

impl Call {
    fn parse(conn: u32, bytes: &[u8]) -> Self {
        let (Value::List(parts), _) = unpack(bytes).unwrap() else { panic!("no array") };
        let [Value::Number(zero), Value::Number(id), Value::Str(method), Value::List(args)] = &parts[..]
        else {
            panic!("no request: {parts:?}");
        };
        assert_eq!((*zero, args.len()), (0.0, 1));
        let method = String::from_utf8(method.clone()).unwrap();
        Self { conn, bytes: bytes.to_vec(), id: *id, method, arg: args[0].clone() }
    }

    /// The answer `[1, id, nil, result]`.
    pub(crate) fn result(&self, result: Value) -> Reply {
        self.reply(Value::Nil, result)
    }

    /// The answer that asks for a PDK call in event 1.
    pub(crate) fn pdk(&self, method: &str, args: Vec<Value>) -> Reply {
        let data = Value::record([("Method", Value::str(method)), ("Args", Value::List(args))]);
        self.result(Value::record([("EventId", Value::number(1)), ("Data", data)]))
    }

    /// The answer that ends event 1.
    pub(crate) fn ret(&self) -> Reply {
        self.result(Value::record([("EventId", Value::number(1)), ("Data", Value::str("ret"))]))
    }

    pub(crate) fn reply(&self, error: Value, result: Value) -> Reply {
        // `pack` drops a nil at the end of a list, as Lua does: written by hand.
        let mut bytes = vec![0x94, 0x01];
        for part in [Value::Number(self.id), error, result] {
            bytes.extend(pack(&part, MapOrder::Given));
        }
        Reply { pieces: vec![bytes], close: false }
    }
}

/// What the scripted server does about a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) close: bool,
}

/// A plugin server that answers by a script.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
    /// Connections that Kong has closed.
    closed: Arc<AtomicUsize>,
    /// Dropped, it stops the server.
    alive: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(dir: &Path, script: impl FnMut(&Call) -> Reply + Send + 'static) -> Self {
        let socket = dir.join("plugin.socket");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script));
        let closed = Arc::new(AtomicUsize::new(0));
        let (seen, ended) = (Arc::clone(&calls), Arc::clone(&closed));
        let (alive, mut killed) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for conn in 1.. {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = &mut killed => return connections.shutdown().await,
                };
                let (mut stream, _) = accepted.unwrap();
                let (seen, script, ended) = (Arc::clone(&seen), Arc::clone(&script), Arc::clone(&ended));
                connections.spawn(async move {
                    let mut received = Vec::new();
                    loop {
                        while let Ok((_, len)) = unpack(&received) {
                            let call = Call::parse(conn, &received.drain(..len).collect::<Vec<_>>());
                            seen.lock().unwrap().push(call.clone());
                            let reply = script.lock().unwrap()(&call);
                            for piece in reply.pieces {
                                if stream.write_all(&piece).await.is_err() {
                                    return;
                                }
                                tokio::task::yield_now().await;
                            }
                            if reply.close {
                                return;
                            }
                        }
                        if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                            ended.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                });
            }
        });
        Self { socket, calls, closed, alive, task }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.method).collect()
    }

    /// Stops the server; listener and connections are closed when this returns.
    pub(crate) async fn kill(self) {
        drop(self.alive);
        self.task.await.unwrap();
    }

    /// Waits until Kong has closed so many connections.
    pub(crate) async fn wait_for_closed(&self, count: usize) {
        let enough = async {
            while self.closed.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("connections close");
    }

    /// Waits until so many calls have arrived.
    pub(crate) async fn wait_for_calls(&self, count: usize) {
        let enough = async {
            while self.calls.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("calls come");
    }
}

/// The log entry without its values, which nearly all depend on time or place.
pub(crate) fn shape(json: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match json {
        Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), shape(v))).collect(),
        Json::Array(items) => items.iter().map(shape).collect(),
        Json::String(_) => "".into(),
        Json::Number(_) => 0.into(),
        other => other.clone(),
    }
}

/// A request that the upstream got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The values of a header, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let values: Vec<_> =
            lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// An upstream that answers every request alike.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Upstream {
    pub(crate) async fn start(response: impl Into<Vec<u8>>) -> Self {
        let response: Arc<[u8]> = response.into().into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (log, response) = (Arc::clone(&log), Arc::clone(&response));
                tokio::spawn(async move {
                    while let Some((head, body)) = read_message(&mut stream).await {
                        log.lock().unwrap().push(Seen { head, body });
                        if stream.write_all(&response).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addr, seen, task: task.abort_handle() }
    }

    /// An upstream that answers 200 `ok`.
    pub(crate) async fn ok() -> Self {
        Self::start("HTTP/1.1 200 OK\r\nX-Upstream: here\r\nContent-Length: 2\r\n\r\nok").await
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends raw bytes on a new connection and reads one response.
pub(crate) async fn send(addr: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    exchange(&mut stream, request).await
}

/// The same on a connection that is there.
pub(crate) async fn exchange(stream: &mut TcpStream, request: impl AsRef<[u8]>) -> Response {
    stream.write_all(request.as_ref()).await.unwrap();
    let response = tokio::time::timeout(PATIENCE, read_message(stream)).await.expect("a response comes");
    let (head, body) = response.expect("a response");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head, body }
}

/// `GET` with these further header lines.
pub(crate) fn get(path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: kong.test\r\n{lines}\r\n")
}

/// Reads one message with a `Content-Length`, or without a body.
async fn read_message(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    let end = loop {
        if let Some(at) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    };
    let head: String = received[..end].iter().map(|b| char::from(*b)).collect();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let length =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = received.split_off(end + 4);
    let complete = |body: &[u8]| {
        if chunked { body.ends_with(b"0\r\n\r\n") } else { body.len() >= length.unwrap_or(0) }
    };
    while !complete(&body) {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}
