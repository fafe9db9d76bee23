//! This knows what tests and the demonstration set up around the two binaries: throw-away certificates and CRLs,
//! certificates that no CA issues, child processes, an upstream that tells what it saw, a TLS client that tells whether it was asked for a certificate, an Admin
//! API, an OCSP responder; and which metrics the dashboard asks for.
//!
//! Nothing here is for production: errors panic.

#![forbid(unsafe_code)]

pub mod crl;
pub mod dashboard;
pub mod disk;
pub mod fake_admin;
pub mod forged;
pub mod ocsp;
pub mod pki;
pub mod process;
pub mod tls_client;
pub mod upstream;
pub mod web;
