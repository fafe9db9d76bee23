//! This knows the snapshot file: the last good configuration that was read from the Admin API, for a start at which that
//! does not answer.
//!
//! The private keys are in it. Without them a start would show every client the one default certificate, which is an
//! outage for all other names; and a Kong without a database keeps the same keys on its disk. So the file is for its owner
//! alone, and what else Kong keeps secret, such as the configurations of other plugins, is left out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use openssl::sha::sha256;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::declarative::build::build_by_id;
use crate::declarative::file;
use crate::json_problem::json_problem;
use crate::snapshot::Digest;
use crate::{AdminClient, Entities};

/// Why a snapshot file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// What the system said.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others than its owner may read or write it: its mode.
    #[error("others than its owner may read or write it (mode {0:04o}), and it holds private keys")]
    OpenToOthers(u32),
    /// It is of another Admin API: its URL.
    #[error("it is of another Admin API, {0}")]
    Another(String),
    /// It is not a snapshot file, or a broken one.
    #[error("{0}")]
    Content(String),
}

/// What the snapshot file says of this Admin API, and how long ago it was written. None: there is no file. Nothing is
/// written, so who only wants to look leaves the file to its owner.
///
/// # Errors
/// Why what is there cannot be used.
pub fn read_snapshot_file(
    path: &Path,
    client: &AdminClient,
) -> Result<Option<(Entities, Duration)>, SnapshotFileError> {
    let stored = read(path, &client.url())?;
    Ok(stored.map(|stored| (stored.entities, stored.age)))
}

/// What was in it.
pub(crate) struct Stored {
    pub(crate) entities: Entities,
    pub(crate) digest: Digest,
    /// How long ago it was written.
    pub(crate) age: Duration,
}

/// Reads the snapshot of this Admin API. None: there is no file.
///
/// # Errors
/// Why what is there cannot be used.
pub(crate) fn read(path: &Path, admin_url: &str) -> Result<Option<Stored>, SnapshotFileError> {
    let mut opened = match File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = opened.metadata()?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SnapshotFileError::OpenToOthers(mode));
    }
    let mut text = Zeroizing::new(Vec::new());
    opened.read_to_end(&mut text)?;
    let wrong = |error: serde_json::Error| SnapshotFileError::Content(json_problem(&error));
    let origin: Origin = serde_json::from_slice(&text).map_err(wrong)?;
    if origin.admin_url != admin_url {
        return Err(SnapshotFileError::Another(origin.admin_url));
    }
    let lists: file::File = serde_json::from_slice(&text).map_err(wrong)?;
    let entities = build_by_id(lists).map_err(SnapshotFileError::Content)?;
    // A clock that went back makes it new.
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    Ok(Some(Stored { entities, digest: sha256(&text), age }))
}

#[derive(Deserialize)]
struct Origin {
    #[serde(rename = "_admin_url")]
    admin_url: String,
}

/// Replaces the file as a whole, readable for its owner only.
///
/// # Errors
/// What the system said; the file is then as it was.
pub(crate) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
            file.write_all(text)?;
            // Before it takes its name: after a crash it must not be found empty.
            file.sync_all()?;
            std::fs::rename(&new, path)
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// A name that nobody else has: process ids repeat between containers that share the folder.
fn beside(path: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{:x}.new", std::process::id(), now.as_nanos()));
    path.with_file_name(name)
}
