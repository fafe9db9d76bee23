//! A stand-in for Kong's Admin API: it answers as a Kong 3.9.1 does, counts what it is asked, and can be told to answer
//! in any other way.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use openssl::ssl::{Ssl, SslAcceptor};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The consumers, in the form of a declarative file: the same are loaded into a real Kong.
pub const ENTITIES: &str = include_str!("fake_admin/kong.json");

/// The id of the only CA certificate.
pub const CA_ID: &str = "6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d";

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counted from 1.
    pub connection: usize,
    /// Path and query.
    pub target: String,
    /// The whole head, as it was sent.
    pub head: String,
}

/// What the server does with a request.
pub enum Reply {
    /// Status, content type, body; the connection stays.
    Answer(u16, &'static str, String),
    /// These bytes, and then the end.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Hang,
}

type Script = Box<dyn Fn(&Seen) -> Reply + Send>;

/// A running server. It ends with the runtime.
pub struct FakeAdmin {
    /// `http://` or `https://`, address and port.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
}

impl FakeAdmin {
    /// Begins to answer as the script says.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// The same over TLS.
    pub async fn start_tls(tls: SslAcceptor, script: impl Fn(&Seen) -> Reply + Send + 'static) -> Self {
        Self::start_with(Some(tls), script).await
    }

    async fn start_with(tls: Option<SslAcceptor>, script: impl Fn(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            connections: Mutex::default(),
        });
        tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Self { url, shared }
    }

    /// Answers in another way from now on.
    pub fn becomes(&self, script: impl Fn(&Seen) -> Reply + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// What has been asked for since the last time.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }

    /// The targets of [`Self::take_seen`].
    pub fn take_targets(&self) -> Vec<String> {
        self.take_seen().into_iter().map(|seen| seen.target).collect()
    }
}

async fn accept(listener: TcpListener, tls: Option<SslAcceptor>, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        *shared.connections.lock().unwrap() += 1;
        let connection = *shared.connections.lock().unwrap();
        tokio::spawn(serve(stream, tls.clone(), connection, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, tls: Option<SslAcceptor>, connection: usize, shared: Arc<Shared>) {
    let Some(tls) = tls else { return answer(stream, connection, &shared).await };
    let ssl = Ssl::new(tls.context()).unwrap();
    let mut stream = tokio_openssl::SslStream::new(ssl, stream).unwrap();
    if Pin::new(&mut stream).accept().await.is_ok() {
        answer(stream, connection, &shared).await;
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, connection: usize, shared: &Shared) {
    let mut head = Vec::new();
    // One byte at a time, for there is no body and nothing is to be fast.
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
        let target = text.split(' ').nth(1).unwrap().to_owned();
        let seen = Seen { connection, target, head: text };
        let reply = (shared.script.lock().unwrap())(&seen);
        shared.seen.lock().unwrap().push(seen);
        match reply {
            Reply::Answer(status, content_type, body) => {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
                );
                if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.is_err() {
                    return;
                }
            }
            Reply::Raw(bytes) => {
                // Who does not want to read all of it may go.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Hang => std::future::pending().await,
        }
    }
}

/// The content type of Kong's answers.
pub const JSON: &str = "application/json; charset=utf-8";

/// Status 200 with this body.
pub fn ok(body: Json) -> Reply {
    Reply::Answer(200, JSON, body.to_string())
}

/// What Kong answers where there is nothing.
pub fn not_found() -> Reply {
    Reply::Answer(404, JSON, json!({"message": "Not found"}).to_string())
}

/// A Kong with [`ENTITIES`] and one CA certificate.
pub fn kong(seen: &Seen) -> Reply {
    let file: Json = serde_json::from_str(ENTITIES).unwrap();
    kong_with(file["consumers"].as_array().unwrap(), seen)
}

/// A Kong with these consumers and one CA certificate.
pub fn kong_with(consumers: &[Json], seen: &Seen) -> Reply {
    if seen.target.len() > 8000 {
        return Reply::Answer(414, "text/html; charset=UTF-8", "<html>".into());
    }
    let path = seen.target.split('?').next().unwrap();
    match path.split('/').skip(1).collect::<Vec<_>>()[..] {
        ["ca_certificates", id] => match decoded(id).as_str() {
            CA_ID => ok(json!({"id": CA_ID, "cert": "PEM", "cert_digest": "00", "tags": null})),
            _ => not_found(),
        },
        ["consumers"] | ["consumers", ""] => match parameter(&seen.target, "custom_id") {
            Some(empty) if empty.is_empty() => {
                let body = json!({"message": "custom_id must be an unempty string"});
                Reply::Answer(400, JSON, body.to_string())
            }
            Some(custom_id) => ok(json!({
                "next": null,
                "data": consumers.iter().filter(|consumer| consumer["custom_id"] == custom_id.as_str())
                    .map(whole).collect::<Vec<_>>(),
            })),
            None => page("consumers", &consumers.iter().map(whole).collect::<Vec<_>>(), &seen.target),
        },
        ["consumers", key] => consumer(consumers, &decoded(key)),
        _ => not_found(),
    }
}

/// What has the form of an id is looked for among the ids only.
fn consumer(consumers: &[Json], key: &str) -> Reply {
    let is_id = key.len() == 36 && key.chars().filter(|&char| char == '-').count() == 4;
    let field = if is_id { "id" } else { "username" };
    consumers.iter().find(|consumer| consumer[field] == key).map_or_else(not_found, |found| ok(whole(found)))
}

/// A Kong whose collections are these: `{"routes": [..], ..}`, each entity as the Admin API shows it. A certificate shows
/// the names of its `snis` too. One without a database says that its configuration has this hash.
pub fn kong_of(lists: &Json, configuration_hash: Option<&str>, seen: &Seen) -> Reply {
    let path = seen.target.split('?').next().unwrap();
    match path.trim_start_matches('/') {
        "status" => {
            let mut status = json!({"memory": {}, "server": {"total_requests": 1}});
            match configuration_hash {
                Some(hash) => status["configuration_hash"] = hash.into(),
                None => status["database"] = json!({"reachable": true}),
            }
            ok(status)
        }
        "certificates" => {
            let mut certificates = entities(lists, "certificates").to_vec();
            for certificate in &mut certificates {
                let named = entities(lists, "snis").iter();
                let named = named.filter(|sni| sni["certificate"]["id"] == certificate["id"]);
                certificate["snis"] = named.map(|sni| sni["name"].clone()).collect();
            }
            page("certificates", &certificates, &seen.target)
        }
        collection @ ("services" | "routes" | "plugins" | "ca_certificates" | "snis" | "consumers") => {
            page(collection, entities(lists, collection), &seen.target)
        }
        _ => not_found(),
    }
}

/// What the root of the Admin API answers: a node of this version, with this configuration, whose clock shows `date` as HTTP
/// writes it. A status that is not 200 is an error of Kong's, which tells its version all the same.
pub fn node(status: u16, version: &str, configuration: &Json, date: &str) -> Reply {
    let body = match status {
        200 => json!({"version": version, "edition": "community", "configuration": configuration}),
        _ => json!({"message": "An unexpected error occurred"}),
    };
    let (body, server) = (body.to_string(), format!("kong/{version}"));
    Reply::Raw(
        format!(
            "HTTP/1.1 {status} Status\r\nDate: {date}\r\nContent-Type: {JSON}\r\nServer: {server}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

fn entities<'a>(lists: &'a Json, collection: &str) -> &'a [Json] {
    lists[collection].as_array().map_or(&[], Vec::as_slice)
}

/// A page of a collection, as the target asks for. An offset is opaque; here it is `+` and the position of the next entity.
fn page(collection: &str, entities: &[Json], target: &str) -> Reply {
    let size = parameter(target, "size").map_or(100, |size| size.parse::<usize>().unwrap());
    let from = parameter(target, "offset")
        .map_or(0, |offset| offset.strip_prefix('+').unwrap().parse::<usize>().unwrap())
        .min(entities.len());
    let to = entities.len().min(from + size);
    let data = &entities[from..to];
    if to == entities.len() {
        return ok(json!({"data": data, "next": null}));
    }
    // `next` leaves out whatever prefix Kong is behind.
    ok(json!({"data": data, "next": format!("/{collection}?offset=%2B{to}"), "offset": format!("+{to}")}))
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decoded)
}

/// With every field that Kong shows, `null` where there is nothing.
fn whole(consumer: &Json) -> Json {
    json!({
        "id": consumer["id"], "username": consumer["username"], "custom_id": consumer["custom_id"],
        "tags": null, "created_at": 1_700_000_000, "updated_at": 1_700_000_000,
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(decoded).unwrap()
}
