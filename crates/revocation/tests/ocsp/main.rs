//! OCSP: what is believed of responses by `openssl ocsp`, and of those that it does not make.

#![allow(missing_docs, reason = "tests")]

mod any_response;
mod content;
mod forge;
mod lab;
mod peers;
mod properties;
mod seeds;
mod signers;
