//! This knows whether the plugin server answers.
//!
//! Where it does not, Kong lets requests pass in its protocol MsgPack:1 (`kong-plugin-protocol.md`, "MsgPack:1 is
//! fail-open"). So the shim is a second line: it sends Kong nothing then that would need a certificate. It asks for
//! `plugin.GetStatus`, since the system accepts connections for a process that hangs, too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use checkup::ServerStatus;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{error::Elapsed, sleep, timeout};

/// How long it may take to answer. Kong itself would wait for a minute.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long after an answer it is asked again. One that ends is noticed at once, for its connection ends with it.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long after the end of a connection it is not asked for a third time: one that ends each of them must not keep us
/// busy.
const PAUSE: Duration = Duration::from_millis(20);

/// The bytes of an answer. Ours takes some 70.
const ANSWER_BYTES: usize = 1024;

/// A view of it that is always the newest.
#[derive(Clone, Debug)]
pub(crate) struct PluginServer(Arc<AtomicBool>);

/// Why it counts as away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("what answers is no plugin server")]
    NotAnAnswer,
    #[error("it took too long")]
    Late(#[from] Elapsed),
}

impl Silence {
    /// Whether nobody is there at all, as where a configuration is looked at on another host than it is for.
    pub(crate) fn is_absence(&self) -> bool {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Io(error) if absent.contains(&error.kind()))
    }
}

/// What the one on this socket says of itself.
///
/// # Errors
/// See [`Silence`].
pub(crate) async fn status(socket: &Path) -> Result<ServerStatus, Silence> {
    timeout(PATIENCE, async { get_status(&mut UnixStream::connect(socket).await?).await }).await?
}

impl PluginServer {
    /// Asks the one on this socket for the first time, and from then on in a task.
    pub(crate) async fn watch(socket: PathBuf) -> Self {
        let answers = Arc::new(AtomicBool::new(false));
        let mut connection = None;
        let first = ask(&socket, &mut connection).await;
        say(&socket, &first);
        answers.store(first.is_ok(), Ordering::Release);
        tokio::spawn(go_on(socket, connection, Arc::clone(&answers)));
        Self(answers)
    }

    /// Whether it has answered when it was asked last.
    pub(crate) fn answers(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

async fn go_on(socket: PathBuf, mut connection: Option<UnixStream>, answers: Arc<AtomicBool>) {
    loop {
        // It says nothing that it was not asked for, so what can be read is the end.
        let has_ended = match &connection {
            Some(connection) => timeout(INTERVAL, connection.readable()).await.is_ok(),
            None => {
                sleep(INTERVAL).await;
                false
            }
        };
        let answered = ask(&socket, &mut connection).await;
        if answers.swap(answered.is_ok(), Ordering::AcqRel) != answered.is_ok() {
            say(&socket, &answered);
        }
        if has_ended {
            sleep(PAUSE).await;
        }
    }
}

fn say(socket: &Path, answered: &Result<(), Silence>) {
    match answered {
        Ok(()) => tracing::info!(socket = %socket.display(), "the plugin server answers"),
        Err(reason) => tracing::error!(
            socket = %socket.display(),
            %reason,
            "the plugin server does not answer: what needs a client certificate is refused until it does"
        ),
    }
}

/// Asks on a new connection, as Kong would make one: the path may lead to a successor by now, to somebody else or to
/// nothing, while a connection from before still reaches the old one. It is kept to notice its end.
async fn ask(socket: &Path, connection: &mut Option<UnixStream>) -> Result<(), Silence> {
    *connection = None;
    let asked = async {
        let mut new = UnixStream::connect(socket).await?;
        get_status(&mut new).await.map(|IgnoredAny| new)
    };
    *connection = Some(timeout(PATIENCE, asked).await??);
    Ok(())
}

/// One call: a request `[0, msgid, method, params]`, and a reply `[1, msgid, error, result]` to it.
async fn get_status<T: DeserializeOwned>(connection: &mut UnixStream) -> Result<T, Silence> {
    const REQUEST: u8 = 0;
    const REPLY: u8 = 1;
    const MSGID: u32 = 0;
    let request =
        rmp_serde::to_vec(&(REQUEST, MSGID, "plugin.GetStatus", [(); 0])).map_err(io::Error::other)?;
    connection.write_all(&request).await?;
    let mut answer = Vec::with_capacity(64);
    while answer.len() < ANSWER_BYTES {
        if connection.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match rmp_serde::from_slice(&answer) {
            Ok((REPLY, MSGID, None::<IgnoredAny>, Some(status))) => return Ok(status),
            Err(error) if is_cut(&error) => {}
            Ok((_, _, _, _)) | Err(_) => break,
        }
    }
    Err(Silence::NotAnAnswer)
}

/// Whether there may be more to come.
fn is_cut(error: &rmp_serde::decode::Error) -> bool {
    use rmp_serde::decode::Error::{InvalidDataRead, InvalidMarkerRead};
    matches!(error, InvalidDataRead(error) | InvalidMarkerRead(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}
