//! This knows whether a worker of Kong 3.4 asks the plugin server yet: not before it has reached the socket once.

use std::{
    io,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::UnixStream, time::Instant};

use crate::{DoubleConfig, mp_rpc::errno_text};

/// How often Kong tries.
const STEP: Duration = Duration::from_millis(100);

/// What a worker knows about the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It was reached, once and for ever.
    Yes,
    /// Not reached so far.
    NotYet,
    /// Not reached in time, and nobody tries any longer: the reason.
    GivenUp(String),
}

/// The connection check of one worker.
pub(crate) struct Readiness {
    state: Mutex<Ready>,
    warned: AtomicBool,
    /// None where nobody checks.
    check: Option<Check>,
}

struct Check {
    socket: PathBuf,
    within: Duration,
}

impl Readiness {
    pub(crate) fn new(settings: &DoubleConfig) -> Self {
        let checks = settings.version.checks_connection_first();
        let state = Mutex::new(if checks { Ready::NotYet } else { Ready::Yes });
        // A server that Kong did not start is never looked for, and so never counts as ready.
        let check = (checks && settings.managed_server)
            .then(|| Check { socket: settings.plugin_socket.clone(), within: settings.ready_timeout });
        Self { state, warned: AtomicBool::new(false), check }
    }

    pub(crate) fn get(&self) -> Ready {
        self.state.lock().expect("no panic while held").clone()
    }

    /// Whether this is the first request that passes for that reason: only that one is worth a warning to Kong.
    pub(crate) fn warn_once(&self) -> bool {
        !self.warned.swap(true, Ordering::Relaxed)
    }

    /// The first try. A server that listens when the double starts is reached before any request comes; in Kong that
    /// is a race.
    pub(crate) async fn try_once(&self) {
        if let Some(check) = &self.check {
            let _ = self.reach(check).await;
        }
    }

    /// The tries after it, until one succeeds or the time is over.
    pub(crate) async fn keep_trying(&self) {
        let Some(check) = &self.check else { return };
        let deadline = Instant::now() + check.within;
        while self.get() == Ready::NotYet {
            tokio::time::sleep(STEP.min(check.within)).await;
            if let Err(e) = self.reach(check).await
                && Instant::now() >= deadline
            {
                *self.state.lock().expect("no panic while held") = Ready::GivenUp(errno_text(&e));
            }
        }
    }

    async fn reach(&self, check: &Check) -> io::Result<()> {
        UnixStream::connect(&check.socket).await?;
        *self.state.lock().expect("no panic while held") = Ready::Yes;
        Ok(())
    }
}
