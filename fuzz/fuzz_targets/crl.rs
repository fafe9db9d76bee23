//! CRLs: what must hold of any bytes is said beside the tests of `revocation`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/revocation/tests/crl/any_bytes.rs"]
mod any_bytes;

fuzz_target!(|bytes: &[u8]| any_bytes::crl(bytes));
