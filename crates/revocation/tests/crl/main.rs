//! CRLs: what is believed, and what they say of a certificate.

mod any_bytes;
mod common;
mod deltas;
mod local;
mod openssl;
mod points;
mod properties;
mod reading;
mod seeds;
mod verdicts;
