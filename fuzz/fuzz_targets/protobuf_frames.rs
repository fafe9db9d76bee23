//! A stream of Kong's frames in ProtoBuf:1: what must hold of it is said in `plugin-server/src/wire/fuzzing/`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| mtls_auth::fuzzing::protobuf_frames(stream));
