//! The demonstration itself.

use std::process::Command;

#[test]
fn it_ends_well_and_shows_every_row() {
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for row in [
        "401 No required TLS certificate was sent",
        "401 TLS certificate failed verification",
        "the upstream saw x-consumer-username: alice",
        "an SNI that is not asked           www.example.com        no     200",
        "stand-in",
        "refused: expired, subject: \"CN=alice\"",
        "With your Kong",
    ] {
        assert!(said.contains(row), "no {row:?} in\n{said}");
    }
    assert!(!said.contains("WRONG"), "{said}");
}
