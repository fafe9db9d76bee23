//! This knows how a new binary takes over from a running one: SIGUSR2 starts the program anew with the listening sockets
//! inherited. Once the new process serves, the old one accepts no more and drains; if it never does, the old one goes on.
//!
//! Both accept for a moment, from the same queues, so nothing is refused in between.

use std::env;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::parent_id;
use std::process::{Command as StdCommand, ExitStatus};
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};

/// Has the id of the process that this one takes over from, which hears on the other side of our standard input that we
/// serve.
const TAKES_OVER_FROM: &str = "TLS_SHIM_TAKES_OVER_FROM";

/// The first descriptor that is counted by `LISTEN_FDS` (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;

/// Why no process has taken over.
#[derive(Debug, thiserror::Error)]
enum TakeoverError {
    #[error("it cannot be started: {0}")]
    Start(#[from] io::Error),
    #[error("it ended before it served: {0}")]
    Ended(ExitStatus),
}

/// A process that is to take over.
struct Successor {
    process: Child,
    /// It says one byte when it serves.
    says: UnixStream,
}

/// Has a new process take over. Returns why this one is to end: that, or the signal that `end` has heard meanwhile. None:
/// there is no other, and this one goes on.
pub(crate) async fn hand_over(
    listeners: &[Arc<TcpListener>],
    end: impl Future<Output = &'static str>,
) -> Option<&'static str> {
    let mut successor = match Successor::start(listeners) {
        Ok(successor) => successor,
        Err(error) => {
            say_failed(&error);
            return None;
        }
    };
    let pid = successor.process.id();
    tracing::info!(pid, "SIGUSR2: a new process starts");
    tokio::select! {
        serves = successor.serves() => match serves {
            Ok(()) => {
                tracing::info!(pid, "SIGUSR2: a new process has taken over");
                return Some("SIGUSR2");
            }
            Err(error) => say_failed(&error),
        },
        // Who ends the shim means all of it.
        signal = end => {
            let _ = successor.process.kill().await;
            return Some(signal);
        }
    }
    None
}

fn say_failed(error: &TakeoverError) {
    tracing::error!(%error, "SIGUSR2: no new process has taken over: this one goes on");
}

impl Successor {
    /// Starts what is now at the path that this process was started by, with the same arguments.
    fn start(listeners: &[Arc<TcpListener>]) -> Result<Self, TakeoverError> {
        let mut arguments = env::args_os();
        let program =
            arguments.next().ok_or_else(|| io::Error::other("the path of the program is not known"))?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let says = UnixStream::from_std(ours)?;
        let descriptors = (FIRST_DESCRIPTOR..).zip(listeners).map(|(child_fd, listener)| {
            Ok(FdMapping { parent_fd: listener.as_fd().try_clone_to_owned()?, child_fd })
        });
        let descriptors = descriptors.collect::<io::Result<Vec<_>>>()?;
        let mut command = StdCommand::new(program);
        command
            .args(arguments)
            .env("LISTEN_FDS", descriptors.len().to_string())
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("LISTEN_FDS_FIRST_FD")
            .env(TAKES_OVER_FROM, std::process::id().to_string())
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .fd_mappings(descriptors)
            .map_err(io::Error::other)?;
        // What it has of ours is closed here with the command, so that the other side ends with the process.
        let process = Command::from(command).spawn()?;
        Ok(Self { process, says })
    }

    /// Waits until it serves.
    async fn serves(&mut self) -> Result<(), TakeoverError> {
        let mut said = [0];
        if let Ok(1) = self.says.read(&mut said).await {
            return Ok(());
        }
        // It has ended, or cannot tell any more whether it serves. Two that serve would be one that nobody expects.
        let _ = self.process.start_kill();
        Err(TakeoverError::Ended(self.process.wait().await?))
    }
}

/// Tells the process that started this one to take over, if one did, that this one serves.
pub(crate) fn tell_predecessor() {
    let named = env::var(TAKES_OVER_FROM).ok().and_then(|pid| pid.parse().ok());
    // Another parent: it is gone, or the variable is one that was left.
    let Some(pid) = named.filter(|&pid: &u32| pid == parent_id()) else { return };
    let told = io::stdin().as_fd().try_clone_to_owned().map(StdUnixStream::from);
    match told.and_then(|mut predecessor| predecessor.write_all(b"\n")) {
        Ok(()) => tracing::info!(pid, "took over from another process"),
        Err(error) => tracing::warn!(pid, %error, "the process that is to end cannot be told"),
    }
}
