//! The commit that this was built from, as git says it.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn the_commit_is_the_one_that_is_checked_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let is_repository = git(&["rev-parse", "--show-toplevel"]).is_some_and(|top| Path::new(&top) == root);
    let told = option_env!("KONG_MTLS_AUTH_COMMIT").filter(|commit| !commit.is_empty());
    match command_line::COMMIT {
        Some(commit) if is_repository && told.is_none() => {
            let head = git(&["rev-parse", "HEAD"]).unwrap();
            assert!(commit.len() >= 12 && head.starts_with(commit), "{commit}, but {head} is checked out");
        }
        commit => assert!(!is_repository || commit == told),
    }
}
