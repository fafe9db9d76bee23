//! The headers of a hand-off: what must hold of any values is said beside the tests of `client-cert`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/client-cert/tests/hand_off/any_headers.rs"]
mod any_headers;

fuzz_target!(|values: &[u8]| any_headers::hand_off(values));
