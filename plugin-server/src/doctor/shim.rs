//! This knows what of the shim's settings has to agree with the server: the key, and the socket. All else of them is for
//! `tls-shim check` to look at.

use std::path::{Path, PathBuf};

use checkup::{Finding, Findings, ServerStatus};
use client_cert::ProofKey;
use serde::Deserialize;

use super::server::is_same;
use crate::siblings;

const SHIM: &str = "shim";
const KEY: &str = "the shim's proof key";
const SOCKET: &str = "the shim's socket";

/// Some keys of `shim.yml`.
#[derive(Deserialize)]
struct ShimSettings {
    proof_key_file: PathBuf,
    plugin_server: Option<PathBuf>,
}

/// Looks at a `shim.yml`. Paths in it that do not begin with `/` count from the working directory, as they do for the shim.
pub(super) async fn look(
    path: &Path,
    socket: &Path,
    status: Option<&ServerStatus>,
    key: Option<&ProofKey>,
    findings: &mut Findings,
) {
    let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let read = read.and_then(|text| serde_saphyr::from_str(&text).map_err(|error| error.to_string()));
    let settings: ShimSettings = match read {
        Ok(settings) => settings,
        Err(error) => {
            let finding = format!("{}: {error}", path.display());
            return findings.push(Finding::fail(SHIM, finding, "`tls-shim check` says more"));
        }
    };
    findings.push(proof_key(&settings.proof_key_file, key));
    findings.push(plugin_server(settings.plugin_server.as_deref(), socket, status).await);
}

fn proof_key(path: &Path, servers: Option<&ProofKey>) -> Finding {
    let (key, finding) = checkup::proof_key(KEY, path);
    match (key, servers) {
        (Some(key), Some(servers)) if !key.is_same(servers) => Finding::fail(
            KEY,
            format!("{} is another one: every certificate that the shim hands on is refused", path.display()),
            "let both name the same proof_key_file, and restart the shim",
        ),
        // Of a file that is wrong, that is what there is to say.
        _ => finding,
    }
}

async fn plugin_server(set: Option<&Path>, socket: &Path, status: Option<&ServerStatus>) -> Finding {
    let Some(set) = set else {
        let finding =
            "plugin_server is not set: what needs a certificate goes to Kong also while the server is away";
        return Finding::warn(SOCKET, finding, format!("set plugin_server: {}", socket.display()));
    };
    let finding = format!("plugin_server is {}", set.display());
    if is_same(set, socket) {
        return Finding::ok(SOCKET, finding);
    }
    // The same server may be there under another name.
    match (siblings::status(set).await, status) {
        (Ok(theirs), Some(ours)) if theirs.pid.is_some() && theirs.pid == ours.pid => {
            Finding::ok(SOCKET, format!("{finding}, where the same process answers"))
        }
        _ => Finding::fail(
            SOCKET,
            format!("{finding}, which is not the server's socket"),
            format!("set plugin_server: {}", socket.display()),
        ),
    }
}
