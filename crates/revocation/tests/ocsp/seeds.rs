//! The seeds of the fuzz target `ocsp_response`, and mutations of them.

use std::path::Path;

use revocation::Status;

use crate::any_response;

#[path = "../../../../fuzz/replay.rs"]
mod replay;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ocsp_response");

#[test]
fn seeds_and_mutations_of_them_hold() {
    replay::replay(Path::new(CORPUS), 4000, any_response::ocsp_response);
}

#[test]
fn seeds_say_what_their_names_say() {
    for entry in std::fs::read_dir(CORPUS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let read = any_response::read(&std::fs::read(&path).unwrap(), any_response::now());
        let statuses = read.map(|answer| answer.map(|answer| answer.status));
        match name.split('-').next().unwrap() {
            "good" if name.ends_with("nonce") => assert_eq!(statuses, [None, Some(Status::Good)], "{name}"),
            "good" => assert_eq!(statuses, [Some(Status::Good); 2], "{name}"),
            "unknown" => assert_eq!(statuses, [Some(Status::Unknown); 2], "{name}"),
            "revoked" => {
                assert!(
                    matches!(statuses, [Some(Status::Revoked { .. }), Some(Status::Revoked { .. })]),
                    "{name}"
                );
            }
            _ => assert_eq!(statuses, [None; 2], "{name}"),
        }
    }
}
