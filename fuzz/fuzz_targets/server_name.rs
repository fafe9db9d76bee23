//! Who is asked for a certificate: what must hold of any routes and server names is said beside the tests of `tls-shim`.

#![no_main]
#![allow(dead_code, reason = "the rest of the shim, which is not here, uses the rest")]

use libfuzzer_sys::fuzz_target;

#[path = "../../tls-shim/src/ca_names.rs"]
mod ca_names;

#[path = "../../tls-shim/src/distinguished_name.rs"]
mod distinguished_name;

#[path = "../../tls-shim/src/limits.rs"]
mod limits;

#[path = "../../tls-shim/src/sni.rs"]
mod sni;

#[path = "../../tls-shim/src/sni/any_server_name.rs"]
mod any_server_name;

fuzz_target!(|bytes: &[u8]| any_server_name::server_name(bytes));
