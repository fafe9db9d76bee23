//! A stream of Kong's calls in MsgPack:1: what must hold of it is said in `plugin-server/src/wire/fuzzing/`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| mtls_auth::fuzzing::msgpack_frames(stream));
