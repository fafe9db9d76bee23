//! This knows the other servers that serve the same Kong at the same time.
//!
//! On reload Kong starts a new server while the old one runs on for its last requests. The new one takes the path of the
//! socket, but Kong's pools keep connections to both, and MsgPack:1 takes any of them for any call: a step of an event
//! would go to a server that does not know it, which would cost the request, and an instance to one that has it not,
//! which Kong would start anew, to and fro. So each server also has a socket of its own, with its [`Run`] in the name,
//! and whatever comes to the wrong one is asked there. It stops at that: an id says which server it belongs to.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use checkup::ServerStatus;
use serde::de::IgnoredAny;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::ids::Run;
use crate::wire::msgpack::{Call, Measure, Request};

/// How long the server may take to answer itself.
const CHECK: Duration = Duration::from_secs(2);

/// This server among those on a socket's path.
#[derive(Debug)]
pub(crate) struct Siblings {
    socket: PathBuf,
    run: Run,
    /// How long one of them may take to answer.
    time_limit: Duration,
}

/// The socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("socket {}: {error}", path.display())]
pub(crate) struct BindError {
    path: PathBuf,
    error: io::Error,
}

impl Siblings {
    /// Binds a socket of this server's own, and then also in place of whatever is at the path.
    ///
    /// The new socket takes the path in one step, so that a connection finds one of them at any time; nobody ever unlinks
    /// the path, so a leaving server cannot take away its successor's.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn bind(socket: &Path, time_limit: Duration) -> Result<(UnixListener, Self), BindError> {
        let failed = |error| BindError { path: socket.to_owned(), error };
        remove_dead(socket).map_err(failed)?;
        loop {
            let siblings = Self { socket: socket.to_owned(), run: Run::random(), time_limit };
            match siblings.listen() {
                // Somebody else's run.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                listening => return listening.map_err(failed).map(|listener| (listener, siblings)),
            }
        }
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let own = own_socket(&self.socket, self.run);
        let listener = UnixListener::bind(&own)?;
        // Kong's workers may run as another user of the same group.
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o660))?;
        let mut second = own.clone().into_os_string();
        second.push(".new");
        // A second name for the same socket; where the file system has none, a pointer to it.
        std::fs::hard_link(&own, &second)
            .or_else(|_| std::os::unix::fs::symlink(own.file_name().unwrap_or_default(), &second))?;
        std::fs::rename(&second, &self.socket)?;
        Ok(listener)
    }

    /// Whether a call that comes to the path is answered by this server.
    ///
    /// # Errors
    /// What happens instead: another server has the path, or none answers.
    pub(crate) async fn check(&self) -> Result<(), String> {
        match status(&self.socket).await?.pid == Some(std::process::id().into()) {
            true => Ok(()),
            false => Err("another server has taken its place".into()),
        }
    }

    /// This server's run.
    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Takes this server's own socket away; that of the path stays.
    pub(crate) fn leave(&self) {
        // Who is left over is removed by the next server.
        let _ = std::fs::remove_file(own_socket(&self.socket, self.run));
    }

    /// What another server answers to a call of something that it, and not this one, has; as it stands on the wire. None
    /// where the call is of this server, of none, or of one that has left.
    pub(crate) async fn ask(&self, request: &Request) -> Option<BytesMut> {
        let run = Run::of(owned_id(&request.call)?).filter(|run| *run != self.run)?;
        match tokio::time::timeout(self.time_limit, exchange(&own_socket(&self.socket, run), request)).await {
            Ok(Ok(reply)) => Some(reply),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(Err(error)) => {
                tracing::warn!(%run, %error, "another server cannot be asked");
                None
            }
            Err(_) => {
                tracing::warn!(%run, "another server does not answer");
                None
            }
        }
    }
}

/// What the server that answers on a socket says of itself.
///
/// # Errors
/// None answers in time, or not as a plugin server does.
pub(crate) async fn status(socket: &Path) -> Result<ServerStatus, String> {
    let request = Request { message_id: 1, call: Call::GetStatus };
    let asked = tokio::time::timeout(CHECK, exchange(socket, &request)).await;
    let reply =
        asked.map_err(|_| format!("no answer within {CHECK:?}"))?.map_err(|error| error.to_string())?;
    match rmp_serde::from_slice(&reply) {
        Ok((1, 1, None::<IgnoredAny>, Some(status))) => Ok(status),
        Ok((_, _, _, _)) | Err(_) => Err("what answers is no plugin server".into()),
    }
}

/// What a call is about.
fn owned_id(call: &Call) -> Option<u64> {
    match *call {
        Call::HandleEvent { instance, .. } => instance,
        Call::CloseInstance { instance } | Call::InstanceStatus { instance } => Some(instance),
        Call::Step { event, .. } => Some(event),
        Call::StartInstance { .. } | Call::GetStatus | Call::Unknown { .. } => None,
    }
}

async fn exchange(socket: &Path, request: &Request) -> io::Result<BytesMut> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&request.encode().map_err(io::Error::other)?).await?;
    let mut reply = BytesMut::with_capacity(4096);
    let mut measure = Measure::default();
    while measure.advance(&reply).map_err(io::Error::other)?.is_none() {
        if stream.read_buf(&mut reply).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(reply)
}

fn own_socket(socket: &Path, run: Run) -> PathBuf {
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{run}"));
    socket.with_file_name(name)
}

/// Removes the sockets that servers which were killed have left.
fn remove_dead(socket: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name().and_then(|name| name.to_str()))
    else {
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
