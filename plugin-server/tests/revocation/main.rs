//! Whether certificates have been revoked: the built server with Kong's double, and responders and CRLs by OpenSSL.

#[path = "../common/mod.rs"]
mod common;
mod modes;
mod setup;
mod times;
mod told;
