//! This knows which host a request is for, and which requests are refused before Kong sees them. It is pure.

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::limits;

/// Why a request does not go to Kong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The shim is no tunnel.
    #[error("CONNECT is not allowed")]
    Connect,
    /// No host, or several.
    #[error("exactly one host is required")]
    Host,
    /// `Host` and `:authority`, or the authority of an absolute target, differ: whoever reads the other one would take
    /// the request for one of another route (RFC 9113, section 8.3.1; RFC 9112, section 3.2.2).
    #[error("the Host header and the authority of the request differ")]
    Authority,
    /// Not a path, nor `*` where that means the server itself (OPTIONS; RFC 9110, section 9.3.7).
    #[error("the target of the request is not a path")]
    Target,
    /// Over [`limits::HEADER_FIELDS`].
    #[error("too many header fields")]
    HeaderFields,
}

impl Refusal {
    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host | Self::Authority | Self::Target => StatusCode::BAD_REQUEST,
            Self::HeaderFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// The host of a request that may go to Kong, as the client spelled it.
///
/// # Errors
/// The request is refused. HTTP/1.0 is held to the same rules as its successors.
pub(crate) fn host(request: &Parts) -> Result<HeaderValue, Refusal> {
    if request.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    // hyper counts for HTTP/1, and only bytes for HTTP/2.
    if request.headers.len() > limits::HEADER_FIELDS {
        return Err(Refusal::HeaderFields);
    }
    let server_itself = request.method == Method::OPTIONS && request.uri.path() == "*";
    if !request.uri.path().starts_with('/') && !server_itself {
        return Err(Refusal::Target);
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let host = match (host, request.uri.authority()) {
        _ if another.is_some() => return Err(Refusal::Host),
        (None, None) => return Err(Refusal::Host),
        (Some(host), None) => host.clone(),
        (None, Some(authority)) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Authority)?
        }
        (Some(host), Some(authority))
            if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            host.clone()
        }
        (Some(_), Some(_)) => return Err(Refusal::Authority),
    };
    // `user@host` is no host.
    if host.is_empty() || host.as_bytes().contains(&b'@') { Err(Refusal::Host) } else { Ok(host) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(method: &str, uri: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_is_what_all_agree_on() {
        for (uri, hosts, expected) in [
            ("/", &["a.example"][..], Ok("a.example")),
            ("/", &["A.example:8443"], Ok("A.example:8443")),
            ("https://a.example/x", &[], Ok("a.example")),
            ("https://a.example/x", &["A.Example"], Ok("A.Example")),
            ("https://a.example/x", &["b.example"], Err(Refusal::Authority)),
            ("https://a.example/x", &["a.example:443"], Err(Refusal::Authority)),
            ("https://a.example/x", &[""], Err(Refusal::Authority)),
            ("https://u@a.example/x", &[], Err(Refusal::Host)),
            ("/", &[], Err(Refusal::Host)),
            ("/", &[""], Err(Refusal::Host)),
            ("/", &["a.example", "a.example"], Err(Refusal::Host)),
            ("*", &["a.example"], Err(Refusal::Target)),
        ] {
            let host = host(&parts("GET", uri, hosts));
            assert_eq!(host, expected.map(HeaderValue::from_static), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn only_options_are_of_the_server_itself() {
        let server = host(&parts("OPTIONS", "*", &["a.example"]));
        assert_eq!(server, Ok(HeaderValue::from_static("a.example")));
        assert_eq!(host(&parts("OPTIONS", "*", &[])), Err(Refusal::Host));
        assert_eq!(host(&parts("POST", "*", &["a.example"])), Err(Refusal::Target));
    }

    #[test]
    fn the_shim_is_no_tunnel() {
        assert_eq!(host(&parts("CONNECT", "a.example:443", &[])), Err(Refusal::Connect));
    }

    #[test]
    fn there_is_an_end_to_header_fields() {
        let mut request = parts("GET", "/", &["a.example"]);
        while request.headers.len() < limits::HEADER_FIELDS {
            request.headers.append("x-a", HeaderValue::from_static("1"));
        }
        assert!(host(&request).is_ok());
        request.headers.append("x-a", HeaderValue::from_static("1"));
        assert_eq!(host(&request), Err(Refusal::HeaderFields));
    }
}
