//! This knows what is to be seen of a running server from the outside: its socket, who answers there, and which key it has.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use checkup::{Finding, Findings, ServerStatus};
use client_cert::ProofKey;
use kong_entities::PluginServer;

use crate::schema::VERSION;
use crate::siblings;

const SOCKET: &str = "socket";
const SERVER: &str = "plugin server";
const KEY: &str = "proof key";
const SERVERS_KEY: &str = "the server's proof key";

/// Who may connect, and whether Kong looks for it there.
pub(super) fn socket(path: &Path, known_to_kong: Option<&PluginServer>) -> Vec<Finding> {
    const START: &str =
        "start Kong, or the server; where Kong does not start it, see its error log for `mtls-auth`";
    let shown = path.display();
    let found = match std::fs::metadata(path) {
        Err(error) => Finding::fail(SOCKET, format!("{shown}: {error}"), START),
        Ok(found) if !found.file_type().is_socket() => {
            Finding::fail(SOCKET, format!("{shown} is no socket"), "remove it, then start Kong")
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            let (user, group) = (found.uid(), found.gid());
            let finding = format!("{shown} has mode {mode:04o}, of user {user} and group {group}");
            if mode & 0o002 != 0 {
                let finding = format!("{finding}: everybody on this host may speak to the server");
                Finding::warn(SOCKET, finding, format!("chmod o-w {shown}"))
            } else {
                Finding::ok(SOCKET, finding)
            }
        }
    };
    let elsewhere =
        known_to_kong.and_then(|server| server.socket.as_deref()).filter(|other| !is_same(path, other));
    let elsewhere = elsewhere.map(|other| {
        Finding::fail(
            SOCKET,
            format!("Kong looks for the server at {}, not at {shown}", other.display()),
            "set pluginserver_mtls_auth_socket to where the server serves (--socket, --kong-prefix)",
        )
    });
    [found].into_iter().chain(elsewhere).collect()
}

/// Whether both lead to the same place.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let same = |one: &Path, other: &Path| Some(one.canonicalize().ok()? == other.canonicalize().ok()?);
    one == other || same(one, other) == Some(true)
}

/// What the server says that answers there.
pub(super) async fn status(socket: &Path, findings: &mut Findings) -> Option<ServerStatus> {
    let status = match siblings::status(socket).await {
        Ok(status) => status,
        Err(error) => {
            let remedy = "while it does not answer no certificate is accepted: `kong reload`, then see Kong's error log";
            findings.push(Finding::fail(
                SERVER,
                format!("no answer at {}: {error}", socket.display()),
                remedy,
            ));
            return None;
        }
    };
    let pid = status.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    findings.push(match status.version.as_deref() {
        Some(VERSION) => Finding::ok(SERVER, format!("process {pid} answers, version {VERSION}")),
        other => {
            let other = other.unwrap_or("unknown");
            let finding = format!("process {pid} answers, version {other}, while this program is {VERSION}");
            Finding::warn(SERVER, finding, "`kong reload` starts the program that is installed now")
        }
    });
    Some(status)
}

/// The key of the file, and whether the server that answers has the same.
pub(super) fn proof_key(
    path: &Path,
    status: Option<&ServerStatus>,
    findings: &mut Findings,
) -> Option<ProofKey> {
    let (key, finding) = checkup::proof_key(KEY, path);
    findings.push(finding);
    findings.push(match (&key, status) {
        (Some(key), Some(status)) => checkup::agreement(SERVERS_KEY, key, status),
        (None, _) => {
            Finding::unseen(SERVERS_KEY, "there is no key to compare it with", "see to the line before")
        }
        (_, None) => {
            Finding::unseen(SERVERS_KEY, "no server answers", "see to the line on the plugin server first")
        }
    });
    key
}
