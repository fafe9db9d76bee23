//! This knows what Kong changes on a request's way to the upstream and on a response's way back.

use http::{HeaderMap, HeaderValue};

use crate::{headers::Headers, request::Request};

/// How the double calls itself where Kong writes `kong/3.9.1`.
pub(crate) const SERVER: &str = "kong-double/3.9.1";

/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Response headers of which nginx keeps one: the upstream's takes the place of a plugin's.
const SINGLE: [&str; 7] =
    ["content-length", "content-type", "date", "etag", "last-modified", "location", "server"];

/// What Kong takes from a request's headers before any plugin runs.
pub(crate) struct Forwarding {
    headers: Vec<(&'static str, Vec<u8>)>,
    /// What the client's `Connection` header names: removed, whoever has set it.
    connection: Vec<String>,
}

impl Forwarding {
    pub(crate) fn of(request: &Request, prefix: &str) -> Self {
        let sent = &request.headers;
        let trusted = |name: &str| request.sender_is_trusted().then(|| sent.as_kong_caches(name)).flatten();
        let peer = request.client.ip().to_string();
        let forwarded_for = match sent.as_kong_caches("x_forwarded_for") {
            Some(given) => [&given[..], b", ", peer.as_bytes()].concat(),
            None => request.remote_addr.to_string().into_bytes(),
        };
        let via = sent.as_kong_caches("via").map(|via| [&via[..], b", "].concat()).unwrap_or_default();
        let version = request.http_version();
        let prefix = if prefix == "/" { Vec::new() } else { prefix.into() };
        let port = request.server.port().to_string();
        let headers = vec![
            ("via", [&via[..], format!("{version:.1} {SERVER}").as_bytes()].concat()),
            ("x-forwarded-for", forwarded_for),
            ("x-forwarded-proto", trusted("x_forwarded_proto").unwrap_or(b"http".into())),
            ("x-forwarded-host", trusted("x_forwarded_host").unwrap_or(request.host().into())),
            ("x-forwarded-port", trusted("x_forwarded_port").unwrap_or(port.into())),
            ("x-forwarded-path", trusted("x_forwarded_path").unwrap_or(request.raw_path().into())),
            ("x-forwarded-prefix", trusted("x_forwarded_prefix").unwrap_or(prefix)),
            ("x-real-ip", request.remote_addr.to_string().into()),
            ("x-kong-request-id", request.id.clone().into()),
        ];
        let connection = sent.as_kong_caches("connection").unwrap_or_default();
        let connection =
            String::from_utf8_lossy(&connection).split(',').map(|n| n.trim().to_owned()).collect();
        Self { headers, connection }
    }

    /// The headers that the upstream gets, after the plugins ran.
    pub(crate) fn upstream_headers(&self, request: &Request) -> HeaderMap {
        let mut headers = request.headers.clone();
        self.connection.iter().filter(|name| !name.is_empty()).for_each(|name| headers.remove(name));
        HOP_BY_HOP.iter().chain(&["expect", "proxy"]).for_each(|name| headers.remove(name));
        for (name, value) in &self.headers {
            // nginx leaves out what `proxy_set_header` sets to nothing.
            if value.is_empty() { headers.remove(name) } else { headers.put(name, value) }
        }
        let mut headers = HeaderMap::from(headers);
        let preserved = request.matched_route().is_some_and(|route| route.preserve_host);
        if let Some(host) = &request.upstream_host {
            headers.insert("host", host.clone());
        } else if !preserved && let Some(route) = request.matched_route() {
            let host = match route.upstream.port() {
                80 => route.upstream.ip().to_string(),
                _ => route.upstream.to_string(),
            };
            headers.insert("host", HeaderValue::from_str(&host).expect("an address is a header value"));
        }
        headers
    }
}

/// The response headers that the client gets: those that plugins have set, then the upstream's, then Kong's.
pub(crate) fn response_headers(upstream: &HeaderMap, request: &Request, upstream_ms: u128) -> Headers {
    let mut headers = request.response_headers.clone();
    let named = upstream.get("connection").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    for (name, value) in upstream {
        let hop = HOP_BY_HOP.contains(&name.as_str());
        if SINGLE.contains(&name.as_str()) {
            headers.remove(name.as_str());
        }
        if !hop && !named.split(',').any(|n| n.trim().eq_ignore_ascii_case(name.as_str())) {
            headers.append(name.as_str().as_bytes(), vec![value.as_bytes().to_vec()]);
        }
    }
    let total = request.received.elapsed().as_millis();
    headers.put("x-kong-upstream-latency", upstream_ms.to_string());
    headers.put("x-kong-proxy-latency", total.saturating_sub(upstream_ms).to_string());
    headers.put("via", format!("1.1 {SERVER}"));
    headers.put("x-kong-request-id", &request.id);
    headers
}
