use std::path::{Path, PathBuf};

#[path = "../../../../fuzz/replay.rs"]
mod replay;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/crl")
}

#[test]
fn what_must_hold_does_for_crls_and_their_mutations() {
    replay::replay(&folder(), 4000, crate::any_bytes::crl);
}

#[test]
fn seeds_are_read_as_what_is_signed_in_a_crl() {
    let seeds = std::fs::read_dir(folder()).unwrap();
    let read: Vec<_> = seeds
        .filter(|seed| {
            let bytes = std::fs::read(seed.as_ref().unwrap().path()).unwrap();
            matches!(crate::any_bytes::sign_and_read(&bytes), Some(Ok(_)))
        })
        .map(|seed| seed.unwrap().file_name())
        .collect();
    assert_eq!(read.len(), 9, "{read:?}");
}
