//! This knows which host a request is for, and which requests are refused before Kong sees them. It is pure.

use std::net::Ipv4Addr;

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode};

use crate::sni::ServerName;

/// Why a request does not go to Kong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The shim is no tunnel.
    #[error("CONNECT is not allowed")]
    Connect,
    /// No host, several, or none that a URI could have (RFC 9112, section 3.2).
    #[error("exactly one host is required")]
    Host,
    /// `Host` and `:authority`, or the authority of an absolute target, differ: whoever reads the other one would take
    /// the request for one of another route (RFC 9113, section 8.3.1; RFC 9112, section 3.2.2).
    #[error("the Host header and the authority of the request differ")]
    Authority,
    /// Not a path, nor `*` where that means the server itself (OPTIONS; RFC 9110, section 9.3.7).
    #[error("the target of the request is not a path")]
    Target,
    /// The connection was opened under a name that is not asked for a certificate, and the request is for one that is:
    /// the client may come again under that name (RFC 9110, section 15.5.20).
    #[error("requests for this host need a connection of their own")]
    Misdirected,
    /// The connection was opened under a name that is asked for a certificate, and whoever decides about it is away.
    #[error("authentication is not available")]
    NoPluginServer,
    /// Over the limit.
    #[error("too many header fields")]
    HeaderFields,
}

impl Refusal {
    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host | Self::Authority | Self::Target => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoPluginServer => StatusCode::SERVICE_UNAVAILABLE,
            Self::HeaderFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// The word for it in the access log.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Host => "host",
            Self::Authority => "authority",
            Self::Target => "target",
            Self::NoPluginServer => "no_plugin_server",
            Self::Misdirected => "misdirected",
            Self::HeaderFields => "header_fields",
        }
    }
}

/// The host of a request that may go to Kong, as the client spelled it. It has `most_fields` in its header at most.
///
/// # Errors
/// The request is refused. HTTP/1.0 is held to the same rules as its successors.
pub(crate) fn host(request: &Parts, most_fields: usize) -> Result<HeaderValue, Refusal> {
    if request.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    // hyper counts for HTTP/1, and only bytes for HTTP/2.
    if request.headers.len() > most_fields {
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
    let is_host = !host.as_bytes().contains(&b'@') && Authority::try_from(host.as_bytes()).is_ok();
    if is_host { Ok(host) } else { Err(Refusal::Host) }
}

/// Whether a request for this host came on the wrong connection, one whose client was not asked for a certificate: under
/// the name that a client would give for the host, `asks` asks.
///
/// It is a courtesy. A route that needs a certificate is safe without it, by the plugin; so where no name for the host
/// can be told, the request goes on.
pub(crate) fn is_misdirected(host: &HeaderValue, asks: impl FnOnce(&ServerName) -> bool) -> bool {
    let host = without_port(host.as_bytes());
    let is_address =
        host.starts_with(b"[") || str::from_utf8(host).is_ok_and(|host| host.parse::<Ipv4Addr>().is_ok());
    // Addresses are not named in a handshake (RFC 6066, section 3).
    match ServerName::from_wire((!is_address).then_some(host)) {
        ServerName::Undecidable(_) => false,
        name => asks(&name),
    }
}

/// A host as it stands before its port.
pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|&byte| byte == b':') {
        // The colons of an IPv6 address stand in brackets.
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        _ => host,
    }
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
            ("/", &["a b"], Err(Refusal::Host)),
            ("/", &["a/b"], Err(Refusal::Host)),
            ("/", &["a,b"], Ok("a,b")),
            ("/", &["[::1]:8443"], Ok("[::1]:8443")),
            ("/", &["a_b.example.:1"], Ok("a_b.example.:1")),
            ("/", &["a.example", "a.example"], Err(Refusal::Host)),
            ("*", &["a.example"], Err(Refusal::Target)),
        ] {
            let host = host(&parts("GET", uri, hosts), 10);
            assert_eq!(host, expected.map(HeaderValue::from_static), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn a_host_is_asked_under_the_name_that_a_client_gives_for_it() {
        let asked = |host: &'static str| {
            let mut name = None;
            is_misdirected(&HeaderValue::from_static(host), |asked| {
                name = Some(asked.clone());
                true
            });
            name
        };
        let name = |name: &str| Some(ServerName::Name(name.to_owned()));
        for (host, expected) in [
            ("a.example", name("a.example")),
            ("A.Example.:8443", name("a.example")),
            ("a.example:", name("a.example")),
            ("a_b", name("a_b")),
            ("127.0.0.1", Some(ServerName::None)),
            ("127.0.0.1:8443", Some(ServerName::None)),
            ("[::1]", Some(ServerName::None)),
            ("[::1]:8443", Some(ServerName::None)),
            ("a..example", None),
            ("*.example", None),
            ("a.example:x", None),
            ("a.example:1:2", None),
        ] {
            assert_eq!(asked(host), expected, "{host}");
        }
        assert!(!is_misdirected(&HeaderValue::from_static("a.example"), |_| false));
    }

    #[test]
    fn only_options_are_of_the_server_itself() {
        let server = host(&parts("OPTIONS", "*", &["a.example"]), 10);
        assert_eq!(server, Ok(HeaderValue::from_static("a.example")));
        assert_eq!(host(&parts("OPTIONS", "*", &[]), 10), Err(Refusal::Host));
        assert_eq!(host(&parts("POST", "*", &["a.example"]), 10), Err(Refusal::Target));
    }

    #[test]
    fn the_shim_is_no_tunnel() {
        assert_eq!(host(&parts("CONNECT", "a.example:443", &[]), 10), Err(Refusal::Connect));
    }

    #[test]
    fn there_is_an_end_to_header_fields() {
        let mut request = parts("GET", "/", &["a.example"]);
        while request.headers.len() < 10 {
            request.headers.append("x-a", HeaderValue::from_static("1"));
        }
        assert!(host(&request, 10).is_ok());
        request.headers.append("x-a", HeaderValue::from_static("1"));
        assert_eq!(host(&request, 10), Err(Refusal::HeaderFields));
    }
}
