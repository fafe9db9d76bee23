//! Tells the crate which commit it is built from: what `KONG_MTLS_AUTH_COMMIT` says, for whoever builds without git's
//! folder, or else what git says of this source tree. Where neither says anything, there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "KONG_MTLS_AUTH_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let told = std::env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = told.or_else(of_git) {
        println!("cargo::rustc-env={VARIABLE}={commit}");
    } else {
        println!("cargo::rustc-env={VARIABLE}=");
    }
}

fn of_git() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok()?;
    // The source may have been unpacked inside a repository that is not ours.
    let repository = git(&root, &["rev-parse", "--show-toplevel"])?;
    if PathBuf::from(repository).canonicalize().ok()? != root {
        return None;
    }
    // Git writes a line there whenever another commit is checked out or made. A file that is not there would have cargo
    // build anew each time.
    let written = ["logs/HEAD", "HEAD"].map(|name| git(&root, &["rev-parse", "--git-path", name]));
    for path in written.into_iter().flatten().map(|path| root.join(path)).filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    git(&root, &["rev-parse", "--short=12", "HEAD"])
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // Git sets these for hooks, which may build another tree.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.arg("-C").arg(root).args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}
