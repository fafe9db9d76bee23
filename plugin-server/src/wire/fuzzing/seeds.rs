use std::path::Path;

#[path = "../../../../fuzz/replay.rs"]
pub(crate) mod replay;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");

#[test]
fn what_must_hold_does_for_what_kong_sent_in_msgpack_and_its_mutations() {
    replay::replay(&Path::new(CORPUS).join("msgpack_frames"), 4000, super::msgpack_frames);
}

#[test]
fn what_must_hold_does_for_what_kong_sent_in_protobuf_and_its_mutations() {
    replay::replay(&Path::new(CORPUS).join("protobuf_frames"), 4000, super::protobuf_frames);
}
