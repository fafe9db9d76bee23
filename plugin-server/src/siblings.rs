//! This knows the other servers that serve the same Kong at the same time.
//!
//! On reload Kong starts a new server while the old one runs on for its last requests. The new one takes the path of the
//! socket, but Kong's pools keep connections to both, and MsgPack:1 takes any of them for any call: a step of an event
//! would go to a server that does not know it, which would cost the request, and an instance to one that has it not,
//! which Kong would start anew, to and fro. So each server also has a socket of its own, with its [`Run`] in the name,
//! and whatever comes to the wrong one is asked there. It stops at that: an id says which server it belongs to.
//!
//! The old one will be killed in the middle of whatever it does: Kong's old worker ends a moment after it has told the
//! server to leave, and takes it along. So as soon as another server answers at the path, the old one begins nothing more:
//! it has forgotten its instances, which Kong then starts at the other one, and its connections end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use checkup::ServerStatus;
use serde::de::IgnoredAny;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::ids::Run;
use crate::socket::{self, Socket};
use crate::wire::msgpack::{Call, Measure, Request};

/// How long the server may take to answer itself.
const CHECK: Duration = Duration::from_secs(2);

/// How often a successor is asked that does not answer yet.
const ASK: Duration = Duration::from_millis(100);

/// How long a connection to a server that has been succeeded may go without a call. Kong sees the end of a connection only
/// when it comes to look, and a worker that starts is busy for a good while: it would take the connection for a good one. One
/// that has had no call for so long is at the bottom of Kong's pool.
const LINGER: Duration = Duration::from_millis(500);

/// This server among those on a socket's path.
#[derive(Debug)]
pub(crate) struct Siblings {
    path: PathBuf,
    run: Run,
    /// How long one of them may take to answer.
    time_limit: Duration,
    /// Whether another one has taken the path.
    succeeded: CancellationToken,
    /// Whether that one has answered there, so that nothing more is begun here.
    handed_over: SetOnce<()>,
    linger: Duration,
}

impl Siblings {
    /// Those on this server's socket.
    pub(crate) fn of(socket: &Socket, time_limit: Duration) -> Self {
        Self {
            path: socket.path().to_owned(),
            run: socket.run(),
            time_limit,
            succeeded: socket.succeeded(),
            handed_over: SetOnce::new(),
            linger: LINGER,
        }
    }

    /// The same, with another time for [`Self::linger`].
    #[cfg(test)]
    #[must_use]
    pub(crate) fn lingering(self, linger: Duration) -> Self {
        Self { linger, ..self }
    }

    /// Waits until another server answers at the path. `withdraw` is done before anybody is told.
    pub(crate) async fn hand_over(&self, withdraw: impl FnOnce()) {
        self.succeeded.cancelled().await;
        while let Err(problem) = status(&self.path).await {
            tracing::debug!(problem, "a successor does not answer yet");
            tokio::time::sleep(ASK).await;
        }
        withdraw();
        // It is set here only.
        let _ = self.handed_over.set(());
        tracing::info!("another server has taken over");
    }

    /// Waits until nothing more is begun here.
    pub(crate) async fn handed_over(&self) {
        self.handed_over.wait().await;
    }

    /// Whether nothing more is begun here. Asked with every call, so it takes no lock.
    pub(crate) fn have_taken_over(&self) -> bool {
        self.handed_over.initialized()
    }

    /// How long a connection may then wait for the next call of an event.
    pub(crate) fn linger(&self) -> Duration {
        self.linger
    }

    /// Whether a call that comes to the path is answered by this server.
    ///
    /// # Errors
    /// What happens instead: another server has the path, or none answers.
    pub(crate) async fn check(&self) -> Result<(), String> {
        match status(&self.path).await?.pid == Some(std::process::id().into()) {
            true => Ok(()),
            false => Err("another server has taken its place".into()),
        }
    }

    /// This server's run.
    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// What another server answers to a call of something that it, and not this one, has or begins; as it stands on the
    /// wire. None where the call is of this server, of none, or of one that has left.
    pub(crate) async fn ask(&self, request: &Request) -> Option<BytesMut> {
        let socket = self.belongs_to(&request.call)?;
        match tokio::time::timeout(self.time_limit, exchange(&socket, request)).await {
            Ok(Ok(reply)) => Some(reply),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(Err(error)) => {
                tracing::warn!(socket = %socket.display(), %error, "another server cannot be asked");
                None
            }
            Err(_) => {
                tracing::warn!(socket = %socket.display(), "another server does not answer");
                None
            }
        }
    }

    /// The socket of the other server whose call this is. The path is no longer this one's once it has handed over.
    fn belongs_to(&self, call: &Call) -> Option<PathBuf> {
        match owned_id(call) {
            Some(id) => Run::of(id).filter(|run| *run != self.run).map(|run| socket::own(&self.path, run)),
            None => {
                let is_begun_there = matches!(call, Call::StartInstance { .. }) && self.have_taken_over();
                is_begun_there.then(|| self.path.clone())
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
