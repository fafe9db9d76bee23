//! The headers of other fronts: what must hold of any value is said beside the tests of `client-cert`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/client-cert/tests/fronts/any_value.rs"]
mod any_value;

fuzz_target!(|value: &[u8]| any_value::front_header(value));
