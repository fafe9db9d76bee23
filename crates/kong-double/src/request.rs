//! This knows one request while it is inside Kong: what `ngx.ctx`, `ngx.req` and `ngx.var` would hold.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, Version};
use http_body_util::{BodyExt, combinators::BoxBody};

use crate::{
    Level,
    config::{Loaded, Route},
    error_log::ErrorLog,
    headers::Headers,
    protocol::Protocol,
    value::Value,
};

/// A body on its way.
pub(crate) type Body = BoxBody<Bytes, hyper::Error>;

/// A request and everything that plugins have made of it.
pub(crate) struct Request {
    pub(crate) config: Arc<Loaded>,
    pub(crate) error_log: ErrorLog,
    /// The client connection's number in the error log.
    pub(crate) connection: u64,
    pub(crate) id: String,
    pub(crate) received: Instant,
    pub(crate) received_at: SystemTime,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    /// As sent, then as plugins have changed them; the upstream gets these.
    pub(crate) headers: Headers,
    pub(crate) client: SocketAddr,
    /// The client's address after nginx's realip module (`$remote_addr`).
    pub(crate) remote_addr: IpAddr,
    pub(crate) server: SocketAddr,
    /// Index of the route and the path prefix by which it matched.
    pub(crate) route: Option<(usize, String)>,
    pub(crate) body: RequestBody,
    pub(crate) consumer: Value,
    pub(crate) credential: Value,
    pub(crate) ctx_shared: Vec<(Value, Value)>,
    pub(crate) ngx_ctx: Vec<(Value, Value)>,
    /// Where plugins send the request instead of the route's upstream.
    pub(crate) target: Option<SocketAddr>,
    pub(crate) upstream_host: Option<HeaderValue>,
    pub(crate) query: Option<Vec<u8>>,
    /// Headers that plugins set on the response.
    pub(crate) response_headers: Headers,
    /// The response, once there is one.
    pub(crate) answered: Option<Answered>,
    /// The RPC methods called for it.
    pub(crate) calls: Mutex<Vec<String>>,
    /// Those of all requests.
    pub(crate) total_calls: Arc<AtomicU64>,
    /// What the worker speaks with the plugin server.
    pub(crate) protocol: Protocol,
    /// Whether consumers can be loaded.
    pub(crate) consumer_store: Arc<AtomicBool>,
}

/// A request's body.
pub(crate) enum RequestBody {
    /// Not read yet.
    Streaming(Body),
    /// Read whole, because a plugin asked for it.
    Buffered(Bytes),
}

/// What the client got or is about to get.
#[derive(Clone)]
pub(crate) struct Answered {
    /// `service`, `exit` or `error`.
    pub(crate) source: &'static str,
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    /// The upstream's body where it was buffered for the response phase.
    pub(crate) body: Option<Bytes>,
    pub(crate) upstream_status: Option<u16>,
}

impl Request {
    pub(crate) fn plugin_name(&self) -> &str {
        &self.config.plugin_name
    }

    pub(crate) fn matched_route(&self) -> Option<&Route> {
        self.route.as_ref().map(|(index, _)| &self.config.settings.routes[*index])
    }

    /// Writes a line as Kong's Lua does while the plugin runs: from `place`, in the plugin's name.
    pub(crate) fn log(&self, level: Level, place: &str, text: &[u8]) {
        let head = format!("[{}] ", self.plugin_name());
        self.log_as_core(level, place, &[head.as_bytes(), text].concat());
    }

    /// The same in nobody's name.
    pub(crate) fn log_as_core(&self, level: Level, place: &str, text: &[u8]) {
        let head = format!("[kong] {place} ");
        self.log_raw(level, &[head.as_bytes(), text].concat());
    }

    /// `ngx.log`.
    pub(crate) fn log_raw(&self, level: Level, text: &[u8]) {
        if level <= self.config.settings.log_level {
            self.error_log.write(level, Some(self.connection), text);
        }
    }

    pub(crate) fn count_call(&self, method: &str) {
        self.total_calls.fetch_add(1, Ordering::Relaxed);
        self.calls.lock().expect("no panic while held").push(method.into());
    }

    /// Reads the body whole, as `ngx.req.read_body` does.
    pub(crate) async fn read_body(&mut self) -> Result<Bytes, hyper::Error> {
        let bytes = match &mut self.body {
            RequestBody::Buffered(bytes) => return Ok(bytes.clone()),
            RequestBody::Streaming(body) => body.collect().await?.to_bytes(),
        };
        self.body = RequestBody::Buffered(bytes.clone());
        Ok(bytes)
    }

    /// `$host`: the `Host` header without its port, in lower case.
    pub(crate) fn host(&self) -> String {
        let named = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = named.or(self.headers.get("host")).map(String::from_utf8_lossy).unwrap_or_default();
        let without_port = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
            _ => &host,
        };
        without_port.trim_end_matches('.').to_ascii_lowercase()
    }

    /// `ngx.req.http_version()`.
    pub(crate) fn http_version(&self) -> f64 {
        if self.version == Version::HTTP_10 { 1.0 } else { 1.1 }
    }

    pub(crate) fn raw_path(&self) -> &str {
        self.uri.path()
    }

    /// `$args`: as sent, or as a plugin has set it.
    pub(crate) fn raw_query(&self) -> Option<&[u8]> {
        self.query.as_deref().or(self.uri.query().map(str::as_bytes))
    }

    pub(crate) fn request_uri(&self) -> String {
        self.uri.path_and_query().map_or_else(|| self.uri.to_string(), ToString::to_string)
    }

    pub(crate) fn sender_is_trusted(&self) -> bool {
        self.config.is_trusted(self.client.ip())
    }

    /// A forwarding header's value, if its sender is trusted.
    pub(crate) fn forwarded(&self, name: &str) -> Option<Vec<u8>> {
        self.sender_is_trusted().then(|| self.headers.as_kong_reads(name.as_bytes())).flatten()
    }
}
