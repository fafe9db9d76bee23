//! The answers of an Admin API: what must hold of any is said in `crates/kong-entities/src/fuzzing/`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|answers: &[u8]| kong_entities::fuzzing::admin_answers(answers));
