//! This knows what is read again while the shim runs: all of it upon SIGHUP or when the settings file changes, and a file
//! that they name when it changes. Each part counts for itself: one that is broken leaves the last good one in place.
//!
//! Connections that are there stay as they began, but for who is asked: that is looked up anew for each request that
//! might be misdirected.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client_cert::ProofKey;
use tokio::signal::unix::Signal;
use tokio::task::{JoinHandle, block_in_place};

use crate::access_log::AccessLog;
use crate::connection::Shim;
use crate::settings::{SessionTickets, Settings};
use crate::source;
use crate::start::{self, StartError};
use crate::tls::ServerCertificate;
use crate::watched::{self, Part, Watched};

/// A shim that runs.
pub(crate) struct Running {
    /// The settings file.
    pub(crate) config: PathBuf,
    /// What stood in it at the start.
    pub(crate) begun_with: Arc<Settings>,
    /// What was read of it last.
    pub(crate) settings: Arc<Settings>,
    /// It and what it names.
    pub(crate) watched: Watched,
    /// For all connections that come.
    pub(crate) shim: Arc<ArcSwap<Shim>>,
    /// What follows Kong's configuration.
    pub(crate) following: JoinHandle<()>,
    pub(crate) access_log: Option<AccessLog>,
}

/// Why something is read again.
#[derive(Clone, Copy)]
enum Cause {
    Hangup,
    Change,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Change => "a file has changed",
        })
    }
}

impl Running {
    /// Reloads at each signal, and what changes on disk. Signals that come during a reload are one reload after it.
    pub(crate) async fn reload_on(mut self, mut hangup: Signal) {
        let mut ticks = watched::ticks();
        loop {
            tokio::select! {
                signal = hangup.recv() => match signal {
                    Some(()) => self.reload(Cause::Hangup).await,
                    None => return,
                },
                _ = ticks.tick() => self.reload_changed().await,
            }
        }
    }

    async fn reload_changed(&mut self) {
        // A disk may take its time, in which this thread would serve nobody.
        if block_in_place(|| self.watched.settings_have_changed()) {
            return self.reload(Cause::Change).await;
        }
        block_in_place(|| {
            for part in self.watched.changed() {
                if self.reload_part(part, Cause::Change) {
                    tracing::info!(key = part.key(), "{}: reloaded", Cause::Change);
                }
            }
        });
    }

    async fn reload(&mut self, cause: Cause) {
        let Some(has_files) = block_in_place(|| self.reload_files(cause)) else { return };
        let is_whole = self.reload_source(cause).await && has_files;
        self.shim.load().metrics.reloaded(is_whole);
        if is_whole {
            tracing::info!("{cause}: reloaded");
        }
    }

    /// All but the source. None: the settings themselves cannot be used; else whether each part can.
    fn reload_files(&mut self, cause: Cause) -> Option<bool> {
        // First: whoever has renamed the file waits for it, whatever becomes of the settings.
        let has_log = self.reopen_access_log(cause);
        self.watched.renew_settings();
        self.settings = match Settings::read(&self.config) {
            Ok(settings) => Arc::new(settings),
            Err(error) => {
                self.shim.load().metrics.reloaded(false);
                tracing::error!(%error, "{cause}: everything stays as it was");
                return None;
            }
        };
        for key in self.settings.fixed_that_differ(&self.begun_with) {
            tracing::warn!(key, "{cause}: this has changed, and counts after a restart only");
        }
        self.watched.name(&self.settings);
        let has_tls = self.reload_limits_and_tls(cause);
        let parts = Part::ALL.map(|part| self.reload_part(part, cause));
        Some(has_log && has_tls && parts.into_iter().all(|is_reloaded| is_reloaded))
    }

    /// Connections that are there keep the limits that they began with.
    fn reload_limits_and_tls(&self, cause: Cause) -> bool {
        let now = Shim::clone(&self.shim.load());
        let (times, limits) = (self.settings.time_limits, self.settings.limits);
        self.shim.store(Arc::new(Shim { times, limits, ..now }));
        let replaced = self.shim.load().tls.replace_settings(&self.settings.tls);
        if let Err(error) = &replaced {
            tracing::error!(%error, "{cause}: versions, ciphers and groups stay as they were");
        }
        replaced.is_ok()
    }

    fn reopen_access_log(&self, cause: Cause) -> bool {
        let reopened = self.access_log.as_ref().map_or(Ok(()), AccessLog::reopen);
        if let Err(error) = &reopened {
            tracing::error!(%error, "{cause}: the access log goes on where it was");
        }
        reopened.is_ok()
    }

    fn reload_part(&self, part: Part, cause: Cause) -> bool {
        match part {
            Part::DefaultCertificate => self.reload_default_certificate(cause),
            Part::ProofKey => self.reload_proof_key(cause),
            Part::SessionTickets => self.reload_tickets(cause),
        }
    }

    fn reload_default_certificate(&self, cause: Cause) -> bool {
        let (settings, tls) = (&self.settings, &self.shim.load().tls);
        let replaced = ServerCertificate::read(&settings.default_certificate)
            .map_err(StartError::from)
            .and_then(|certificate| start::refusal(settings, tls.replace_default(certificate)));
        if let Err(error) = &replaced {
            tracing::error!(%error, "{cause}: the default certificate stays as it was");
        }
        replaced.is_ok()
    }

    /// Connections that are there keep the key that they began with.
    fn reload_proof_key(&self, cause: Cause) -> bool {
        match ProofKey::read(&self.settings.proof_key_file) {
            Ok(key) => {
                let now = Shim::clone(&self.shim.load());
                self.shim.store(Arc::new(Shim { proof_key: Arc::new(key), ..now }));
                true
            }
            Err(error) => {
                tracing::error!(%error, "{cause}: the proof key stays as it was");
                false
            }
        }
    }

    /// Sessions are full handshakes again only where something about their tickets has changed.
    fn reload_tickets(&self, cause: Cause) -> bool {
        let tls = &self.shim.load().tls;
        let next = match (tls.tickets(), &self.settings.session_tickets) {
            (Some(tickets), SessionTickets::On(settings)) => {
                tickets.next(settings).map(|next| next.map(Some))
            }
            (None, SessionTickets::Off) => Ok(None),
            (_, changed) => start::tickets(changed).map(Some),
        };
        match next {
            Ok(None) => true,
            Ok(Some(tickets)) => {
                tls.replace_tickets(tickets);
                true
            }
            Err(error) => {
                tracing::error!(%error, "{cause}: session tickets stay as they were");
                false
            }
        }
    }

    /// The old source is followed until the new one has given a configuration.
    async fn reload_source(&mut self, cause: Cause) -> bool {
        match source::follow_known(&self.settings).await {
            Ok(mut followed) => {
                // Never two at a time, or the old one could have the last word.
                self.following.abort();
                let _ = (&mut self.following).await;
                let tls = Arc::clone(&self.shim.load().tls);
                start::apply(&mut followed, &tls);
                self.following = tokio::spawn(start::follow(followed, tls));
                true
            }
            Err(error) => {
                tracing::error!(%error, "{cause}: Kong's configuration is followed as before");
                false
            }
        }
    }
}
