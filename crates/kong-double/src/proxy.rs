//! This knows a request's way through the double, from the client's connection to the upstream and back.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};

use crate::{
    Level,
    forward::{Forwarding, SERVER, response_headers},
    headers::Headers,
    pdk_response::own_error,
    phase::{Exit, Phase, Stop},
    request::{Answered, Body, Request, RequestBody},
    router,
    shared::Shared,
    uri::{normal_path, upstream_uri},
    value::Value,
    worker::Worker,
};

/// One client connection. nginx gives a connection to one worker, which serves all its requests.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) number: u64,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// A request's way: admitted, routed, through the plugins' access phase, to the upstream, through their
/// response phase and back. The log phase runs when the body has been sent.
pub(crate) async fn serve(http: http::Request<Incoming>, connection: Arc<Connection>) -> Response<Outgoing> {
    let mut request = admit(http, &connection);
    if let Some(status) = refused_by_nginx(&request) {
        let refusal = own_error(status, None, &request);
        return answer(request, refusal, "error", &connection);
    }
    let path = normal_path(request.raw_path());
    let Some((index, prefix)) = router::find(&request.config.settings.routes, &request.host(), &path) else {
        let not_found = own_error(404, Some("no Route matched with those values"), &request);
        return answer(request, not_found, "exit", &connection);
    };
    let forwarding = Forwarding::of(&request, &prefix);
    request.route = Some((index, prefix));
    take_earlier_authentication(&mut request);

    match run_phase(Phase::Access, &mut request, &connection).await {
        Ok(()) => {}
        Err(Stop::Exit(exit)) => return answer(request, exit, "exit", &connection),
        Err(Stop::Error { place, text }) => return unexpected(request, place, &text, &connection),
    }

    let asked = Instant::now();
    let upstream = match ask_upstream(&mut request, &forwarding, &connection).await {
        Ok(upstream) => upstream,
        Err(reason) => {
            request.error_log.write(Level::Error, Some(request.connection), reason.as_bytes());
            let bad_gateway = own_error(502, None, &request);
            return answer(request, bad_gateway, "error", &connection);
        }
    };
    let (head, body) = upstream.into_parts();
    let headers = response_headers(&head.headers, &request, asked.elapsed().as_millis());
    let mut body = body.boxed();
    let status = head.status.as_u16();
    request.answered =
        Some(Answered { source: "service", status, headers, body: None, upstream_status: Some(status) });

    if request.config.phases.iter().any(|phase| phase == "response") {
        let Ok(buffered) = body.collect().await.map(|body| body.to_bytes()) else {
            let bad_gateway = own_error(502, None, &request);
            return answer(request, bad_gateway, "error", &connection);
        };
        if let Some(answered) = &mut request.answered {
            answered.body = Some(buffered.clone());
        }
        match run_phase(Phase::Response, &mut request, &connection).await {
            Ok(()) => {}
            Err(Stop::Exit(exit)) => return answer(request, exit, "exit", &connection),
            Err(Stop::Error { place, text }) => return unexpected(request, place, &text, &connection),
        }
        body = whole(buffered);
    }
    finish(request, body, &connection)
}

/// Runs one phase of the route's plugins; the first that answers the request ends it.
async fn run_phase(phase: Phase, request: &mut Request, connection: &Connection) -> Result<(), Stop> {
    let config = Arc::clone(&request.config);
    let Some((route, _)) = request.route else { return Ok(()) };
    if !config.phases.iter().any(|name| name == phase.name()) {
        return Ok(());
    }
    for plugin in &config.plugins[route] {
        connection.worker.handle_event(plugin, phase, request).await?;
    }
    Ok(())
}

fn admit(http: http::Request<Incoming>, connection: &Connection) -> Request {
    let (head, body) = http.into_parts();
    let config = connection.shared.config();
    let headers = Headers::from(&head.headers);
    let client_ip = connection.client.ip();
    // nginx's realip module, with Kong's default `real_ip_header = X-Real-IP`.
    let real_ip =
        headers.get("x-real-ip").and_then(|ip| std::str::from_utf8(ip).ok()?.trim().parse::<IpAddr>().ok());
    let remote_addr = real_ip.filter(|_| config.is_trusted(client_ip)).unwrap_or(client_ip);
    Request {
        config,
        error_log: connection.shared.error_log.clone(),
        connection: connection.number,
        id: connection.shared.next_request_id(),
        received: Instant::now(),
        received_at: SystemTime::now(),
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers,
        client: connection.client,
        remote_addr,
        server: connection.server,
        route: None,
        body: RequestBody::Streaming(body.boxed()),
        consumer: Value::Nil,
        credential: Value::Nil,
        ctx_shared: Vec::new(),
        ngx_ctx: vec![(Value::str("KONG_ACCESS_START"), Value::number(milliseconds_now()))],
        target: None,
        upstream_host: None,
        query: None,
        response_headers: Headers::default(),
        answered: None,
        calls: Mutex::default(),
        total_calls: connection.shared.total_calls(),
        protocol: connection.worker.protocol(),
        consumer_store: Arc::clone(&connection.shared.consumer_store),
    }
}

/// `ngx.now() * 1000`.
fn milliseconds_now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64
}

/// What nginx refuses before Kong sees it: no or several hosts, CONNECT, and more header than fits Kong's
/// `large_client_header_buffers` of 4 times 8 KiB, one line in one of them.
fn refused_by_nginx(request: &Request) -> Option<u16> {
    let hosts = request.headers.iter().filter(|(name, _)| name == "host").count();
    if hosts > 1 || (hosts == 0 && request.version != Version::HTTP_10) {
        return Some(400);
    }
    if request.method == Method::CONNECT {
        return Some(405);
    }
    const BUFFER: usize = 8192;
    if request.uri.to_string().len() + request.method.as_str().len() + 11 > BUFFER {
        return Some(414);
    }
    let lines = || request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    (lines().any(|len| len > BUFFER) || lines().sum::<usize>() > 4 * BUFFER).then_some(494)
}

fn take_earlier_authentication(request: &mut Request) {
    let Some(earlier) = request.matched_route().and_then(|route| route.already_authenticated.clone()) else {
        return;
    };
    request.consumer = earlier.consumer.map_or(Value::Nil, |consumer| consumer.to_lua());
    request.credential = earlier.credential.map_or(Value::Nil, |credential| (&credential).into());
}

async fn ask_upstream(
    request: &mut Request,
    forwarding: &Forwarding,
    connection: &Connection,
) -> Result<Response<Incoming>, String> {
    let target = request.target.or(request.matched_route().map(|route| route.upstream));
    let target = target.ok_or("no upstream")?;
    let uri = format!("http://{target}{}", upstream_uri(request));
    let headers = forwarding.upstream_headers(request);
    let nothing = RequestBody::Buffered(Bytes::new());
    let body = match std::mem::replace(&mut request.body, nothing) {
        // nginx passes no trailers on.
        RequestBody::Streaming(body) => Outgoing { body, _finished: None }.boxed(),
        RequestBody::Buffered(bytes) => whole(bytes),
    };
    let outgoing = http::Request::builder().method(request.method.clone()).uri(&uri).body(body);
    let mut outgoing = outgoing.map_err(|e| format!("upstream request {uri}: {e}"))?;
    *outgoing.headers_mut() = headers;
    let failed = |e| format!("connect() failed or response broken ({e:?}) while asking upstream: \"{uri}\"");
    connection.shared.upstream.request(outgoing).await.map_err(failed)
}

fn unexpected(
    request: Request,
    place: Option<&'static str>,
    text: &str,
    connection: &Arc<Connection>,
) -> Response<Outgoing> {
    request.log(Level::Error, "init.lua:406", lua_error(place, text).as_bytes());
    let error = own_error(500, None, &request);
    answer(request, error, "error", connection)
}

/// A Lua error's message.
fn lua_error(place: Option<&'static str>, text: &str) -> String {
    place.map_or_else(|| text.to_owned(), |place| format!("{place}: {text}"))
}

/// Answers a request in Kong's place, without or instead of the upstream.
fn answer(
    mut request: Request,
    exit: Exit,
    source: &'static str,
    connection: &Arc<Connection>,
) -> Response<Outgoing> {
    let mut headers = request.response_headers.clone();
    for (name, values) in exit.headers {
        if !name.eq_ignore_ascii_case(b"transfer-encoding") && !name.eq_ignore_ascii_case(b"content-length") {
            headers.set(&name, values);
        }
    }
    match exit.content_type {
        Some(content_type) if headers.get("content-type").is_none() => {
            headers.put("content-type", content_type)
        }
        // nginx's `charset UTF-8`.
        None if headers.get("content-type") == Some(b"text/plain") => {
            headers.put("content-type", "text/plain; charset=UTF-8");
        }
        _ => {}
    }
    headers.put("x-kong-response-latency", request.received.elapsed().as_millis().to_string());
    headers.put("server", SERVER);
    headers.put("x-kong-request-id", &request.id);
    let upstream_status = request.answered.take().and_then(|answered| answered.upstream_status);
    request.answered = Some(Answered { source, status: exit.status, headers, body: None, upstream_status });
    finish(request, whole(exit.body.into()), connection)
}

/// Hands the response to the client's connection; the log phase waits for the end of its body.
fn finish(request: Request, body: Body, connection: &Arc<Connection>) -> Response<Outgoing> {
    let answered = request.answered.as_ref().expect("set by all callers");
    let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = answered.headers.clone().into();
    connection.shared.count(&request, answered.status);
    let logs = request.route.is_some() && request.config.phases.iter().any(|phase| phase == "log");
    let finished = logs.then(|| Finished { request: Some(request), connection: Arc::clone(connection) });
    response.map(|()| Outgoing { body, _finished: finished })
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// A body being sent, without trailers.
pub(crate) struct Outgoing {
    body: Body,
    _finished: Option<Finished>,
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.filter(|frame| !matches!(frame, Ok(frame) if frame.is_trailers())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the log phase once it is dropped, which is when the response is through or was given up.
struct Finished {
    request: Option<Request>,
    connection: Arc<Connection>,
}

impl Drop for Finished {
    fn drop(&mut self) {
        let Some(mut request) = self.request.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let connection = Arc::clone(&self.connection);
        let log = async move {
            if let Some(answered) = &mut request.answered {
                // As nginx shows it in the log phase, whether or not the connection stays.
                answered.headers.put("connection", "close");
            }
            if let Err(Stop::Error { place, text }) = run_phase(Phase::Log, &mut request, &connection).await {
                let text = lua_error(place, &text);
                let text = format!("lua entry thread aborted: runtime error: {text}");
                request.error_log.write(Level::Error, Some(request.connection), text.as_bytes());
            }
        };
        self.connection.shared.spawn(log);
    }
}
