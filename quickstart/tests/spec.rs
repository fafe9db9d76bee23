//! The run for users' own Kong can be started, and does what its document says.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn spec() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec")
}

/// The first words of the lines that begin with this.
fn first_words<'a>(text: &'a str, prefix: &str) -> HashSet<&'a str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(prefix))
        .map(|rest| rest.split([' ', '`']).next().unwrap())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn fail_closed_knows_the_faults_of_its_document_and_no_others() {
    let output = Command::new(spec().join("fail-closed")).arg("--help").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, faults) = help.split_once("\nfaults:\n").unwrap();
    let document = std::fs::read_to_string(spec().join("README.md")).unwrap();
    let documented = first_words(&document, "| `");
    assert!(documented.len() > 5);
    assert_eq!(documented, first_words(faults, "  "));
}
