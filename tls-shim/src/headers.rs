//! This knows which header fields go from a client to Kong and back: what is removed, what is set. It is pure.
//!
//! Kong's nginx takes `Client_Cert` for `Client-Cert`, so every rule about a name is one about all its spellings.

use std::net::IpAddr;

use client_cert::field::{self, spells_any};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, header};

use crate::authority;
use crate::handoff::Values;
use crate::list::{lists, tokens};
use crate::websocket;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What a client may not say of the way that its request took, since Kong believes the shim. `X-Forwarded-For` is not
/// among them: its reader counts from the end, where the shim writes. Kong itself passes on `Forwarded` unread.
const WAY: [&str; 6] = [
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-real-ip",
];

/// Fields that are about one connection, not about the message (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What the shim knows of where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// The client's address.
    pub(crate) client: IpAddr,
    /// The port that it connected to.
    pub(crate) port: u16,
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is no body.
    None,
    /// So many bytes.
    Known(u64),
    /// It ends when it ends.
    Unknown,
}

/// How a request goes on to Kong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onward {
    /// As a message of HTTP/1.1.
    Http1,
    /// As a handshake, after which there are no more messages.
    WebSocket,
    /// As a message of HTTP/2.
    Http2,
}

/// Turns the header of a client's request into that of the request to Kong.
pub(crate) fn to_kong(
    headers: &mut HeaderMap,
    host: HeaderValue,
    length: Length,
    way: Way,
    hand_off: Option<Values>,
    onward: Onward,
) {
    let said_empty = headers.contains_key(CONTENT_LENGTH);
    let takes_trailers = lists(headers, &TE, "trailers");

    // First whatever the client wants removed, so that it removes nothing of ours.
    remove_hop_by_hop(headers);
    remove_all(headers, |name| {
        spells_any(name, &field::HANDOFF)
            || spells_any(name, &field::IDENTITY)
            || spells_any(name, &field::OTHER_IDENTITY)
            || spells_any(name, &WAY)
            || (spells_any(name, &[X_FORWARDED_FOR.as_str()]) && name.contains(&b'_'))
    });
    // The shim has answered the expectation, and passes on no trailers.
    headers.remove(EXPECT);
    headers.remove(TRAILER);

    // The message is framed anew, so that nobody behind the shim can read other borders into it.
    headers.remove(CONTENT_LENGTH);
    match length {
        Length::None if said_empty => drop(headers.insert(CONTENT_LENGTH, 0.into())),
        Length::None => {}
        Length::Known(bytes) => drop(headers.insert(CONTENT_LENGTH, bytes.into())),
        Length::Unknown if onward == Onward::Http2 => {}
        Length::Unknown => drop(headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
    }
    match onward {
        Onward::WebSocket => websocket::say(headers),
        Onward::Http1 if takes_trailers => {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        Onward::Http2 if takes_trailers => drop(headers.insert(TE, HeaderValue::from_static("trailers"))),
        Onward::Http1 | Onward::Http2 => {}
    }

    let client = text(way.client.to_canonical().to_string());
    headers.insert(X_FORWARDED_HOST, forwarded_host(&host));
    headers.insert(HOST, host);
    headers.insert(X_FORWARDED_FOR, appended(headers, &client));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(X_FORWARDED_PORT, way.port.into());
    headers.insert(X_REAL_IP, client);

    if let Some(Values { leaf, chain, proof }) = hand_off {
        headers.insert(HeaderName::from_static(field::CLIENT_CERT), leaf);
        if let Some(chain) = chain {
            headers.insert(HeaderName::from_static(field::CLIENT_CERT_CHAIN), chain);
        }
        headers.insert(HeaderName::from_static(field::CLIENT_CERT_PROOF), proof);
    }
}

/// Turns the header of Kong's answer into that of the answer to the client.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    // Where both stand the length does not count (RFC 9112, section 6.3), and must not reach the client.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        // How long the body is is no matter of the connection, whatever somebody says.
        .filter(|name| *name != CONTENT_LENGTH)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn remove_all(headers: &mut HeaderMap, unwanted: impl Fn(&[u8]) -> bool) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| unwanted(name.as_str().as_bytes())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What the client said of `X-Forwarded-For` in however many fields, and then its own address.
fn appended(headers: &HeaderMap, client: &HeaderValue) -> HeaderValue {
    let said = headers.get_all(X_FORWARDED_FOR).iter().filter(|value| !value.is_empty());
    let all: Vec<&[u8]> = said.chain([client]).map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| client.clone())
}

/// The host in the form that Kong gives it in `X-Forwarded-Host`: lower case, without port.
fn forwarded_host(host: &HeaderValue) -> HeaderValue {
    let name = authority::without_port(host.as_bytes()).to_ascii_lowercase();
    HeaderValue::from_bytes(&name).unwrap_or_else(|_| host.clone())
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| header::HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way = Way { client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), port: 8443 };

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn pairs(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut pairs: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        pairs.sort_unstable();
        pairs
    }

    fn values() -> Values {
        Values { leaf: text(":L:".into()), chain: Some(text(":C:".into())), proof: text("P".into()) }
    }

    fn sent(fields: &[(&str, &str)], hand_off: Option<Values>) -> HeaderMap {
        let mut headers = map(fields);
        to_kong(
            &mut headers,
            HeaderValue::from_static("a.example"),
            Length::None,
            WAY,
            hand_off,
            Onward::Http1,
        );
        headers
    }

    const SET: [(&str, &str); 6] = [
        ("host", "a.example"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.7"),
    ];

    #[test]
    fn what_the_shim_sets_is_there() {
        assert_eq!(pairs(&sent(&[], None)), SET);
        let with = sent(&[("accept", "*/*")], Some(values()));
        let mut expected = vec![
            ("accept", "*/*"),
            ("client-cert", ":L:"),
            ("client-cert-chain", ":C:"),
            ("client-cert-proof", "P"),
        ];
        expected.extend(SET);
        assert_eq!(pairs(&with), expected);
    }

    #[test]
    fn no_spelling_of_a_name_that_is_ours_comes_from_a_client() {
        let names =
            field::HANDOFF.iter().chain(&field::IDENTITY).chain(&field::OTHER_IDENTITY).chain(&super::WAY);
        for name in names {
            let dashes: Vec<_> = name.match_indices('-').map(|(at, _)| at).collect();
            for mask in 0..1u32 << dashes.len() {
                let mut spelling = name.to_string();
                for (bit, &at) in dashes.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0) {
                    let _ = bit;
                    spelling.replace_range(at..=at, "_");
                }
                for spelling in [spelling.to_uppercase(), spelling] {
                    let forged = [(spelling.as_str(), "forged"), (&spelling, ""), (&spelling, "again")];
                    assert_eq!(pairs(&sent(&forged, None)), SET, "{spelling}");
                    let with = sent(&forged, Some(values()));
                    assert_eq!(with, sent(&[], Some(values())), "{spelling}");
                }
            }
        }
    }

    #[test]
    fn a_client_removes_nothing_of_ours() {
        let all = "Client-Cert, client-cert-chain ,CLIENT-CERT-PROOF, x-forwarded-for, x-real-ip, host, \
                   x-forwarded-proto, content-length, close";
        let mut headers = map(&[("connection", all), ("connection", "client_cert"), ("content-length", "3")]);
        let host = HeaderValue::from_static("a.example");
        to_kong(&mut headers, host, Length::Known(3), WAY, Some(values()), Onward::Http1);
        let mut expected = sent(&[], Some(values()));
        expected.insert(CONTENT_LENGTH, 3.into());
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_is_about_the_connection_stays_here() {
        let headers = sent(
            &[
                ("connection", "Upgrade, X-Mine ,,\"odd\""),
                ("connection", "http2-settings, keep-alive"),
                ("upgrade", "websocket"),
                ("http2-settings", "AAAA"),
                ("keep-alive", "5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("trailer", "client-cert"),
                ("transfer-encoding", "chunked"),
                ("expect", "100-continue"),
                ("x-mine", "1"),
                ("x-other", "2"),
                ("proxy-authorization", "Basic eA=="),
            ],
            None,
        );
        let mut expected = SET.to_vec();
        expected.extend([("proxy-authorization", "Basic eA=="), ("x-other", "2")]);
        expected.sort_unstable();
        assert_eq!(pairs(&headers), expected);
        let headers = sent(&[("te", "gzip;q=0.5, Trailers")], None);
        assert_eq!((headers[TE].as_bytes(), headers[CONNECTION].as_bytes()), (&b"trailers"[..], &b"te"[..]));
    }

    #[test]
    fn what_is_about_an_http1_connection_is_not_said_over_http2() {
        let mut headers = map(&[("te", "trailers"), ("connection", "x-hop"), ("x-hop", "1")]);
        let host = HeaderValue::from_static("a.example");
        to_kong(&mut headers, host, Length::Unknown, WAY, Some(values()), Onward::Http2);
        let mut expected = sent(&[], Some(values()));
        expected.insert(TE, HeaderValue::from_static("trailers"));
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_body_is_framed_anew() {
        for (said, length, expected) in [
            (vec![], Length::None, vec![]),
            (vec![("content-length", "0")], Length::None, vec![("content-length", "0")]),
            (vec![("content-length", "5")], Length::Known(5), vec![("content-length", "5")]),
            (vec![("transfer-encoding", "chunked")], Length::Unknown, vec![("transfer-encoding", "chunked")]),
            (
                vec![("content-length", "5"), ("content-length", "5")],
                Length::Known(5),
                vec![("content-length", "5")],
            ),
            (vec![], Length::Unknown, vec![("transfer-encoding", "chunked")]),
        ] {
            let mut headers = map(&said);
            to_kong(&mut headers, HeaderValue::from_static("a.example"), length, WAY, None, Onward::Http1);
            for (name, _) in SET {
                headers.remove(name);
            }
            assert_eq!(pairs(&headers), expected, "{said:?}");
        }
    }

    #[test]
    fn the_clients_address_comes_last() {
        let headers = sent(
            &[
                ("x-forwarded-for", "10.0.0.1, 10.0.0.2"),
                ("x_forwarded-for", "10.9.9.9"),
                ("x-forwarded-for", ""),
                ("x-forwarded-for", "10.0.0.3"),
                ("forwarded", "for=10.0.0.1"),
            ],
            None,
        );
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert!(!headers.contains_key("x_forwarded-for"));
        assert_eq!(headers["forwarded"], "for=10.0.0.1");
    }

    #[test]
    fn the_forwarded_host_is_as_kong_gives_it() {
        for (host, forwarded) in
            [("A.Example:8443", "a.example"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            let mut headers = HeaderMap::new();
            to_kong(&mut headers, HeaderValue::from_static(host), Length::None, WAY, None, Onward::Http1);
            assert_eq!(
                (headers[HOST].to_str().unwrap(), &headers[X_FORWARDED_HOST]),
                (host, &text(forwarded.into()))
            );
        }
    }

    #[test]
    fn an_answer_keeps_what_is_about_the_message() {
        let mut headers = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("trailer", "x-sum"),
            ("server", "kong"),
        ]);
        to_client(&mut headers);
        assert_eq!(pairs(&headers), [("server", "kong"), ("trailer", "x-sum")]);
        let mut headers = map(&[("connection", "content-length"), ("content-length", "7")]);
        to_client(&mut headers);
        assert_eq!(pairs(&headers), [("content-length", "7")]);
    }
}
