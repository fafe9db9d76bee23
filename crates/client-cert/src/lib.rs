//! This knows how a client certificate is handed from the TLS front to the plugin server: as the headers of
//! [RFC 9440](https://www.rfc-editor.org/rfc/rfc9440), with a proof that our own shim wrote them.
//!
//! The shim writes, the plugin server reads; both use this one crate so that they cannot disagree. What other fronts
//! write is read by [`front`].

#![forbid(unsafe_code)]

pub mod field;
pub mod front;
mod key;
mod presented;
mod proof;

pub use key::{KeyBytes, KeyFileError, ProofKey, read_key_file};
pub use presented::{MAX_CERTIFICATES, MAX_HEADER_BYTES, MalformedHeader, Presented};
pub use proof::{Digests, LIFETIME, MAX_CLOCK_SKEW, Proof, ProofError};
