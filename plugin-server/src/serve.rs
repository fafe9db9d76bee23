//! This knows the socket: how it is bound, how connections are taken, how the server leaves.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};

use crate::conversation;
use crate::rpc::Server;

/// How often what Kong left behind is looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long running events may take to end once the server has been told to leave.
const DRAIN: Duration = Duration::from_secs(5);

/// How long to wait before accepting again after a failure, such as having no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Binds the socket in place of whatever is there.
///
/// Kong starts a new server on reload while the old one may still run. The new socket takes the path in one step, so
/// that a connection finds one of them at any time; nobody ever unlinks the path, so a leaving server cannot take away
/// its successor's.
///
/// # Errors
/// What the system says, with the path.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let bind = || {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let new = path.with_file_name(name);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        // Kong's workers may run as another user of the same group.
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&new, path)?;
        Ok(listener)
    };
    bind().map_err(|error| BindError { path: path.to_owned(), error })
}

/// The socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("socket {}: {error}", path.display())]
pub(crate) struct BindError {
    path: PathBuf,
    error: io::Error,
}

/// Serves connections until `leave` resolves, then lets running events end.
pub(crate) async fn serve(listener: UnixListener, server: Arc<Server>, leave: impl Future<Output = ()>) {
    let expiry = tokio::spawn(expire(Arc::clone(&server)));
    tokio::select! {
        () = accept(&listener, &server) => {}
        () = leave => {}
    }
    expiry.abort();
    tracing::info!(unfinished = server.unfinished(), "leaving");
    // Steps come on connections that are there already or on new ones, so the door stays open for now. A reply that is
    // not written out when the process ends is a closed connection to Kong, which then lets the request pass.
    let drained = async {
        while server.unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = accept(&listener, &server) => {}
        result = tokio::time::timeout(DRAIN, drained) => {
            if result.is_err() {
                tracing::warn!(unfinished = server.unfinished(), "left before all events had ended");
            }
        }
    }
}

async fn accept(listener: &UnixListener, server: &Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::clone(server)));
            }
            Err(error) => {
                tracing::error!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn expire(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        server.expire(Instant::now());
    }
}

async fn connection(stream: UnixStream, server: Arc<Server>) {
    if let Err(error) = conversation::converse(stream, &server).await {
        tracing::warn!(%error, "a connection was closed");
    }
}
