//! OCSP responses: what must hold of any bytes is said beside the tests of `revocation`.

#![no_main]
#![allow(dead_code, reason = "the tests, which are not here, use the rest")]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/revocation/tests/ocsp/any_response.rs"]
mod any_response;

fuzz_target!(|bytes: &[u8]| any_response::ocsp_response(bytes));
