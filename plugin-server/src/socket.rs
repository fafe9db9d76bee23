//! This knows the socket: the path that Kong connects to, and beside it a name of this server's own.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::ids::Run;

/// The two names of this server's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    own: PathBuf,
    run: Run,
}

/// The socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("socket {}: {error}", path.display())]
pub(crate) struct BindError {
    path: PathBuf,
    error: io::Error,
}

impl Socket {
    /// Binds a socket of this server's own, and then also in place of whatever is at the path.
    ///
    /// The new socket takes the path in one step, so that a connection finds one of them at any time; nobody ever unlinks
    /// the path, so a leaving server cannot take away its successor's.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn bind(path: &Path) -> Result<(UnixListener, Self), BindError> {
        let failed = |error| BindError { path: path.to_owned(), error };
        remove_dead(path).map_err(failed)?;
        loop {
            let run = Run::random();
            let socket = Self { path: path.to_owned(), own: own(path, run), run };
            match socket.listen() {
                // Somebody else's run.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                listening => return listening.map_err(failed).map(|listener| (listener, socket)),
            }
        }
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(&self.own)?;
        // Kong's workers may run as another user of the same group.
        std::fs::set_permissions(&self.own, std::fs::Permissions::from_mode(0o660))?;
        let mut second = self.own.clone().into_os_string();
        second.push(".new");
        // A second name for the same socket; where the file system has none, a pointer to it.
        std::fs::hard_link(&self.own, &second)
            .or_else(|_| std::os::unix::fs::symlink(self.own.file_name().unwrap_or_default(), &second))?;
        std::fs::rename(&second, &self.path)?;
        Ok(listener)
    }

    /// The path that Kong connects to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The run in the name of this server's own.
    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Takes this server's own name away; the path stays.
    pub(crate) fn leave(&self) {
        // Who is left over is removed by the next server.
        let _ = std::fs::remove_file(&self.own);
    }
}

/// The socket of a run's own.
pub(crate) fn own(path: &Path, run: Run) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{run}"));
    path.with_file_name(name)
}

/// Removes the sockets that servers which were killed have left.
fn remove_dead(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let suffix = file_name.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        let run = suffix.map(|suffix| suffix.strip_suffix(".new").unwrap_or(suffix).parse::<Run>());
        if matches!(run, Some(Ok(_))) && entry.file_type()?.is_socket() {
            let dead = std::os::unix::net::UnixStream::connect(entry.path());
            if dead.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
