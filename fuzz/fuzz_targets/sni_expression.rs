//! Routes in the expressions language: what must hold of any text is said beside the tests of `tls-shim`.

#![no_main]
#![allow(dead_code, reason = "the map of the shim, which is not here, uses the rest")]

use expression::{Open, allowed};
use libfuzzer_sys::fuzz_target;

#[path = "../../tls-shim/src/sni/name.rs"]
mod name;

#[path = "../../tls-shim/src/sni/expression.rs"]
mod expression;

#[path = "../../tls-shim/src/sni/expression/any_text.rs"]
mod any_text;

fuzz_target!(|text: &[u8]| any_text::sni_expression(text));
