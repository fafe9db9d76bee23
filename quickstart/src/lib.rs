//! This knows the whole path in small: a TLS client, `tls-shim`, Kong's double with `mtls-auth`, and an upstream, with
//! throw-away certificates and free ports. The demonstration shows it; the tests of the whole path drive it.

#![forbid(unsafe_code)]

pub mod rows;
pub mod stack;
