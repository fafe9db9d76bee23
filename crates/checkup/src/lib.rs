//! This knows what `mtls-auth doctor` and `tls-shim check` both judge, and how they tell it: a line for each thing, OK, WARN
//! or FAIL with what to do.
//!
//! Who asks and reads is elsewhere; this judges what came of it.

#![forbid(unsafe_code)]

mod clock;
mod ends;
mod finding;
mod kong;
mod proof_key;

pub use clock::clock;
pub use ends::ends;
pub use finding::{Finding, Findings, Verdict};
pub use kong::{fails_closed, header_buffers, proxy_listen, trusted_ips, version};
pub use proof_key::{ServerStatus, agreement, proof_key};
