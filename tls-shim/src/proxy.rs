//! This knows the way of a request: from a client's connection to Kong and back.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade;

use crate::answer::Answer;
use crate::authority::{self, Refusal};
use crate::body::Outgoing;
use crate::grpc;
use crate::handoff::HandOff;
use crate::headers::{self, Onward, Way};
use crate::patience::Patience;
use crate::plugin_server::PluginServer;
use crate::record::{Record, Side};
use crate::sni::ServerName;
use crate::tunnel::After;
use crate::upstream::{SendError, Upstream};
use crate::websocket;

/// What Kong says where its own upstream fails.
const BAD_GATEWAY: &str = "An invalid response was received from the upstream server";

/// What Kong says where its own upstream takes too long.
const GATEWAY_TIMEOUT: &str = "The upstream server is timing out";

/// What all requests of a connection have in common.
pub(crate) struct Client {
    /// Where they come from.
    pub(crate) way: Way,
    /// The certificate of the client; none where it was not asked or had none.
    pub(crate) hand_off: Option<HandOff>,
    /// Whether it was asked for one.
    pub(crate) asked: bool,
    /// Who decides about its certificate, if that is known.
    pub(crate) plugin_server: Option<PluginServer>,
    /// What its connection becomes.
    pub(crate) after: After,
    /// Its ways to Kong.
    pub(crate) upstream: Upstream,
    /// The fields that the header of a request may have.
    pub(crate) header_fields: usize,
    /// How long Kong may take for the header of an answer.
    pub(crate) answer_limit: Option<Duration>,
}

impl Client {
    /// Whether Kong may be sent what needs a decision about this client: without a plugin server, it might let it pass.
    fn may_go_on(&self) -> bool {
        !self.asked || self.plugin_server.as_ref().is_none_or(PluginServer::answers)
    }
}

/// Sends a request to Kong and gives its answer, or one of the shim's own. `asks` says who would be asked for a
/// certificate now. The record ends with the answer, or goes with a WebSocket.
pub(crate) async fn proxy(
    mut request: Request<Incoming>,
    client: &Client,
    record: &mut Record,
    asks: impl FnOnce(&ServerName) -> bool,
) -> Response<Answer> {
    if request.headers().contains_key(UPGRADE) {
        client.after.asked(upgrade::on(&mut request));
    }
    let (mut request, body) = request.into_parts();
    let host = match admit(&request, client, asks) {
        Ok(host) => host,
        Err(refusal) => {
            tracing::debug!(method = %request.method, reason = %refusal, "refused a request");
            return answer(&request.method, record, refusal.status(), refusal.code(), &refusal.to_string());
        }
    };
    let target = request.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let grpc = client.upstream.takes_grpc() && grpc::is(&request);
    // The host is one: it was admitted.
    let grpc = grpc.then(|| Authority::try_from(host.as_bytes()).ok()).flatten();
    let onward = match grpc {
        Some(_) => Onward::Http2,
        None if websocket::is_asked_for(&request) => Onward::WebSocket,
        None => Onward::Http1,
    };
    let patience = client.answer_limit.map(|limit| (Patience::begin(), limit));
    let body = Outgoing::new(body, record.counts(), patience.as_ref().map(|(patience, _)| patience.clone()));
    let hand_off = client.hand_off.as_ref().map(|hand_off| hand_off.values(SystemTime::now()));
    headers::to_kong(&mut request.headers, host, body.length(), client.way, hand_off, onward);

    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = Uri::from(target);
    *outgoing.headers_mut() = request.headers;
    let sent = async {
        match grpc {
            // Boxed for those that are none: its room would be part of each request.
            Some(host) => Box::pin(client.upstream.send_grpc(host, outgoing)).await,
            None => client.upstream.send(outgoing, || client.may_go_on()).await,
        }
    };
    let late = async {
        match &patience {
            Some((patience, limit)) => patience.ends(*limit).await,
            None => std::future::pending().await,
        }
    };
    let answered = tokio::select! {
        // An answer that is there is never late.
        biased;
        answered = sent => answered,
        () = late => {
            tracing::warn!(path = request.uri.path(), "Kong took too long for an answer");
            return answer(&request.method, record, StatusCode::GATEWAY_TIMEOUT, "kong_too_slow", GATEWAY_TIMEOUT);
        }
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => {
            log_failure(&error);
            if error.is_by_client() {
                record.broke(Side::Client);
            }
            return answer(&request.method, record, StatusCode::BAD_GATEWAY, error.code(), BAD_GATEWAY);
        }
    };
    record.kong_answered(response.status());
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !(onward == Onward::WebSocket && websocket::is_agreed_to(response.headers())) {
        tracing::warn!("Kong switched to a protocol that nobody asked for");
        return answer(&request.method, record, StatusCode::BAD_GATEWAY, "kong_switched", BAD_GATEWAY);
    }
    tracing::debug!(
        method = %request.method,
        path = request.uri.path(),
        client = %client.way.client,
        certificate = client.hand_off.is_some(),
        status = response.status().as_u16(),
        "passed a request"
    );
    headers::to_client(response.headers_mut());
    if switches {
        websocket::say(response.headers_mut());
        client.after.agreed(upgrade::on(&mut response), record.take());
    }
    response
}

/// The host of a request that may go to Kong.
fn admit(
    request: &Parts,
    client: &Client,
    asks: impl FnOnce(&ServerName) -> bool,
) -> Result<HeaderValue, Refusal> {
    let host = authority::host(request, client.header_fields)?;
    if !client.asked && authority::is_misdirected(&host, asks) {
        return Err(Refusal::Misdirected);
    }
    if client.may_go_on() { Ok(host) } else { Err(Refusal::NoPluginServer) }
}

/// A short answer of the shim's own, in the form of Kong's.
fn answer(
    method: &Method,
    record: &mut Record,
    status: StatusCode,
    reason: &'static str,
    message: &str,
) -> Response<Answer> {
    record.shim_answers(status, reason);
    let body = format!("{{\"message\":\"{message}\"}}");
    let length = HeaderValue::from(body.len());
    // An answer to HEAD has the header only (RFC 9110, section 9.3.2), which hyper sees to in HTTP/1 alone.
    let body = if method == Method::HEAD { Bytes::new() } else { Bytes::from(body) };
    let mut response = Response::new(Answer::Own(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, length);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn log_failure(error: &SendError) {
    let reason = match error.source() {
        Some(cause) => format!("{error}: {}", innermost(cause)),
        None => error.to_string(),
    };
    // That is no fault of Kong's.
    if error.is_by_client() {
        tracing::debug!(reason, "a client left in the middle of a request");
    } else {
        tracing::warn!(reason, "Kong did not answer");
    }
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
