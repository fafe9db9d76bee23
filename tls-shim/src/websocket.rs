//! This knows when a request asks to become a WebSocket, and when an answer agrees (RFC 6455, section 4). It is pure.
//!
//! No other protocol is upgraded to: behind one that nobody here reads (`h2c` for example) a client could send requests
//! with headers that are ours.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Method, Version};

use crate::list::{is_one, lists};

const WEBSOCKET: &str = "websocket";

/// Whether a request asks for it. One that has a body does not: what follows its header must have one meaning.
pub(crate) fn is_asked_for(request: &Parts) -> bool {
    let headers = &request.headers;
    request.version == Version::HTTP_11
        && request.method == Method::GET
        && lists(headers, &CONNECTION, "upgrade")
        && is_one(headers, &UPGRADE, WEBSOCKET)
        && !headers.contains_key(TRANSFER_ENCODING)
        && headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
}

/// Whether an answer of status 101 agrees to it.
pub(crate) fn is_agreed_to(headers: &HeaderMap) -> bool {
    is_one(headers, &UPGRADE, WEBSOCKET)
}

/// Says it of a message, in either direction.
pub(crate) fn say(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn asks(method: &str, version: Version, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        is_asked_for(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_a_websocket_is_asked_for() {
        let good = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert!(asks("GET", Version::HTTP_11, &good));
        assert!(asks("GET", Version::HTTP_11, &[good[0], good[1], ("content-length", "0")]));
        for (method, version, fields) in [
            ("POST", Version::HTTP_11, &good[..]),
            ("GET", Version::HTTP_10, &good),
            ("GET", Version::HTTP_2, &good),
            ("GET", Version::HTTP_11, &good[..1]),
            ("GET", Version::HTTP_11, &good[1..]),
            ("GET", Version::HTTP_11, &[good[0], ("upgrade", "h2c")]),
            ("GET", Version::HTTP_11, &[good[0], ("upgrade", "h2c, websocket")]),
            ("GET", Version::HTTP_11, &[good[0], good[1], ("upgrade", "h2c")]),
            ("GET", Version::HTTP_11, &[good[0], ("upgrade", "websocket/13")]),
            ("GET", Version::HTTP_11, &[("connection", "upgraded"), good[1]]),
            ("GET", Version::HTTP_11, &[good[0], good[1], ("content-length", "5")]),
            ("GET", Version::HTTP_11, &[good[0], good[1], ("transfer-encoding", "chunked")]),
        ] {
            assert!(!asks(method, version, fields), "{method} {version:?} {fields:?}");
        }
    }
}
