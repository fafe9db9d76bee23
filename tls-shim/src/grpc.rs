//! This knows which requests are gRPC, which needs HTTP/2 on the whole way. It is pure.

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Version};

/// Whether a request is one of gRPC over HTTP/2. gRPC-Web is not: it is made to go over HTTP/1.1.
pub(crate) fn is(request: &Parts) -> bool {
    let is_grpc = |kind: &[u8]| {
        let kind = kind.trim_ascii().to_ascii_lowercase();
        kind.strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
    };
    request.version == Version::HTTP_2
        && request.method == Method::POST
        && request.headers.get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let is_grpc = |method: &str, version, kind: &str| {
            let request = Request::builder().method(method).version(version).header(CONTENT_TYPE, kind);
            is(&request.body(()).unwrap().into_parts().0)
        };
        for kind in
            ["application/grpc", "Application/GRPC+proto", "application/grpc; x=y", "application/grpc+json"]
        {
            assert!(is_grpc("POST", Version::HTTP_2, kind), "{kind}");
            assert!(!is_grpc("POST", Version::HTTP_11, kind), "{kind}");
            assert!(!is_grpc("GET", Version::HTTP_2, kind), "{kind}");
        }
        for kind in
            ["application/grpc-web", "application/grpc-web+proto", "application/json", "application/grp", ""]
        {
            assert!(!is_grpc("POST", Version::HTTP_2, kind), "{kind}");
        }
    }
}
