//! Declarative files: what must hold of any text is said in `crates/kong-entities/src/fuzzing/`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| kong_entities::fuzzing::declarative_file(text));
