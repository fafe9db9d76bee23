//! The proof of a hand-off: what must hold of any value is said beside the tests of `client-cert`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/client-cert/tests/hand_off/any_proof.rs"]
mod any_proof;

fuzz_target!(|value: &[u8]| any_proof::proof(value));
