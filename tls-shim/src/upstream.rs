//! This knows Kong's side: a pool of HTTP/1.1 connections to its proxy listener.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::body::Outgoing;
use crate::limits;

/// The way to Kong.
pub(crate) struct Upstream {
    authority: Authority,
    client: Client<HttpConnector, Outgoing>,
}

impl Upstream {
    /// Prepares a pool; no connection is made yet.
    pub(crate) fn new(authority: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits::CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::UPSTREAM_IDLE)
            .pool_max_idle_per_host(limits::UPSTREAM_IDLE_CONNECTIONS)
            .http1_max_headers(limits::HEADER_FIELDS)
            // The request has the client's host.
            .set_host(false)
            .build(connector);
        Self { authority, client }
    }

    /// Sends a request. The answer comes as soon as its header is there, the body may still be on its way in both
    /// directions. Dropping the future, or the answer's body, ends the request and its connection.
    ///
    /// A request is sent again only where none of it had been written to a kept connection that Kong had closed.
    ///
    /// # Errors
    /// Kong cannot be reached, or what it says is not HTTP.
    pub(crate) async fn send(
        &self,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response<Incoming>, Error> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(target);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path are a URI");
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        self.client.request(request).await
    }
}
