//! This knows what SIGHUP does: what can be replaced is read again, each part for itself. One that is broken leaves the last
//! good one in place.
//!
//! Connections that are there stay as they began, but for who is asked: that is looked up anew for each request that
//! might be misdirected.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use client_cert::ProofKey;
use tokio::signal::unix::Signal;
use tokio::task::JoinHandle;

use crate::connection::Shim;
use crate::settings::{SessionTickets, Settings};
use crate::source;
use crate::start::{self, StartError};
use crate::tls::ServerCertificate;

/// A shim that runs.
pub(crate) struct Running {
    /// The settings file.
    pub(crate) config: PathBuf,
    /// What stood in it at the start.
    pub(crate) begun_with: Settings,
    /// For all connections that come.
    pub(crate) shim: Arc<ArcSwap<Shim>>,
    /// What follows Kong's configuration.
    pub(crate) following: JoinHandle<()>,
}

impl Running {
    /// Reloads at each signal. Signals that come during a reload are one reload after it.
    pub(crate) async fn reload_on(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            self.reload().await;
        }
    }

    async fn reload(&mut self) {
        let settings = match Settings::read(&self.config) {
            Ok(settings) => settings,
            Err(error) => return tracing::error!(%error, "SIGHUP: everything stays as it was"),
        };
        for key in settings.fixed_that_differ(&self.begun_with) {
            tracing::warn!(key, "SIGHUP: this has changed, and counts after a restart only");
        }
        let has_tls = self.reload_limits_and_tls(&settings);
        let has_certificate = self.reload_default_certificate(&settings);
        let has_key = self.reload_proof_key(&settings);
        let has_tickets = self.reload_tickets(&settings);
        let has_source = self.reload_source(&settings).await;
        if has_tls && has_certificate && has_key && has_tickets && has_source {
            tracing::info!("SIGHUP: reloaded");
        }
    }

    /// Connections that are there keep the limits that they began with.
    fn reload_limits_and_tls(&self, settings: &Settings) -> bool {
        let shim = Shim::clone(&self.shim.load());
        let (times, limits) = (settings.time_limits, settings.limits);
        self.shim.store(Arc::new(Shim { times, limits, ..shim }));
        let replaced = self.shim.load().tls.replace_settings(&settings.tls);
        if let Err(error) = &replaced {
            tracing::error!(%error, "SIGHUP: versions, ciphers and groups stay as they were");
        }
        replaced.is_ok()
    }

    fn reload_default_certificate(&self, settings: &Settings) -> bool {
        let tls = &self.shim.load().tls;
        let replaced = ServerCertificate::read(&settings.default_certificate)
            .map_err(StartError::from)
            .and_then(|certificate| start::refusal(settings, tls.replace_default(certificate)));
        if let Err(error) = &replaced {
            tracing::error!(%error, "SIGHUP: the default certificate stays as it was");
        }
        replaced.is_ok()
    }

    /// Connections that are there keep the key that they began with.
    fn reload_proof_key(&self, settings: &Settings) -> bool {
        match ProofKey::read(&settings.proof_key_file) {
            Ok(key) => {
                let shim = Shim::clone(&self.shim.load());
                self.shim.store(Arc::new(Shim { proof_key: Arc::new(key), ..shim }));
                true
            }
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the proof key stays as it was");
                false
            }
        }
    }

    /// Sessions are full handshakes again only where something about their tickets has changed.
    fn reload_tickets(&self, settings: &Settings) -> bool {
        let tls = &self.shim.load().tls;
        let next = match (tls.tickets(), &settings.session_tickets) {
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
                tracing::error!(%error, "SIGHUP: session tickets stay as they were");
                false
            }
        }
    }

    /// The old source is followed until the new one has given a configuration.
    async fn reload_source(&mut self, settings: &Settings) -> bool {
        match source::follow_known(settings).await {
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
                tracing::error!(%error, "SIGHUP: Kong's configuration is followed as before");
                false
            }
        }
    }
}
