//! Certificates and their names: what must hold of any bytes is said in `plugin-server/src/certificate/fuzzing.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mtls_auth::fuzzing::certificate_names(bytes));
