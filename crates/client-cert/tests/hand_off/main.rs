//! The hand-off in RFC 9440 headers, and its proof: what must hold of any bytes in their place.

mod any_headers;
mod any_proof;
mod seeds;
