//! This knows whether the shim and the plugin server have the same proof key, without either showing it.

use std::path::Path;

use client_cert::ProofKey;
use serde::Deserialize;

use crate::Finding;

/// What a plugin server says of itself when it is asked for its status. Older ones, and others than ours, say less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServerStatus {
    /// The id of its process.
    pub pid: Option<u64>,
    /// Its version.
    pub version: Option<String>,
    /// See [`ProofKey::fingerprint`].
    pub proof_key: Option<String>,
}

/// The key of a file, and what is to be said of that: whether it is there, a key, and closed to others.
pub fn proof_key(what: &'static str, path: &Path) -> (Option<ProofKey>, Finding) {
    match ProofKey::read(path) {
        Ok(key) => {
            let finding = format!("{} is a key and closed to others ({})", path.display(), key.fingerprint());
            (Some(key), Finding::ok(what, finding))
        }
        Err(error) => {
            let remedy = "the plugin server makes one where there is none; it may be of mode 0640 with the shim's group";
            (None, Finding::fail(what, error.to_string(), remedy))
        }
    }
}

/// Whether the plugin server that answers has this key.
pub fn agreement(what: &'static str, key: &ProofKey, status: &ServerStatus) -> Finding {
    let own = key.fingerprint();
    match status.proof_key.as_deref() {
        Some(theirs) if theirs == own => Finding::ok(what, "the plugin server that answers has the same"),
        Some(theirs) => Finding::fail(
            what,
            format!(
                "the plugin server that answers has another one ({theirs}, not {own}): it refuses every certificate"
            ),
            "let both name the same proof_key_file, then `kong reload` and restart the shim",
        ),
        None => Finding::unseen(
            what,
            "the plugin server that answers does not say which key it has",
            "it may be older than this program: `kong reload`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{Fail, Ok, Warn};

    #[test]
    fn another_key_is_told_by_its_fingerprint() {
        let key = ProofKey::from_bytes([1; 32]);
        let other = ProofKey::from_bytes([2; 32]);
        for (status, verdict) in [
            (format!(r#"{{"Pid": 7, "Version": "1", "ProofKey": "{}"}}"#, key.fingerprint()), Ok),
            (format!(r#"{{"ProofKey": "{}", "More": 1}}"#, other.fingerprint()), Fail),
            (r#"{"ProofKey": ""}"#.to_owned(), Fail),
            (r#"{"Pid": 7}"#.to_owned(), Warn),
            (r#"{"ProofKey": null}"#.to_owned(), Warn),
        ] {
            let status = serde_json::from_str(&status).unwrap();
            assert_eq!(agreement("key", &key, &status).verdict, verdict, "{status:?}");
        }
    }
}
