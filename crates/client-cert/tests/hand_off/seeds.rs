use std::path::{Path, PathBuf};

#[path = "../../../../fuzz/replay.rs"]
mod replay;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

#[test]
fn what_must_hold_does_for_headers_of_a_hand_off_and_their_mutations() {
    replay::replay(&folder("hand_off"), 4000, crate::any_headers::hand_off);
}

#[test]
fn what_must_hold_does_for_proofs_and_their_mutations() {
    replay::replay(&folder("proof"), 4000, crate::any_proof::proof);
}
