//! This knows when the server looks for the guard by itself, and how it tells what it finds.
//!
//! It does so once for each run, when the first instance starts under MsgPack:1: then Kong is there, and lets requests pass
//! while this server does not answer. A Kong without a database reads its configuration when it starts, and this server
//! with it. What is found goes to Kong's error log with the next event, for Kong shows what this server writes itself at its level
//! `info` only: one PDK call more, once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kong_entities::{AdminClient, Entities, SourceError, applied_plugins};

use super::coverage::Coverage;
use super::function::CARRIER;
use super::words;
use crate::entity_source::EntitySource;
use crate::instance::Shared;
use crate::schema::PLUGIN_NAME;

/// The plugins whose configurations are looked at.
pub(crate) const LOOKED_AT: [&str; 2] = [PLUGIN_NAME, CARRIER];

/// What is to be known of the guard, once.
#[derive(Debug, Default)]
pub(crate) struct GuardWatch {
    has_begun: AtomicBool,
    has_finding: Arc<AtomicBool>,
    finding: Arc<Mutex<Option<String>>>,
}

impl GuardWatch {
    /// Looks for the guard in the background, the first time that it is called.
    pub(crate) fn begin(&self, shared: &Arc<Shared>) {
        if self.has_begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, has_finding, finding) =
            (Arc::clone(shared), Arc::clone(&self.has_finding), Arc::clone(&self.finding));
        tokio::spawn(async move {
            if let Some(found) = look(&shared.entities).await {
                *finding.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                has_finding.store(true, Ordering::Release);
            }
        });
    }

    /// What Kong's operator must know, and does not yet.
    pub(crate) fn take_finding(&self) -> Option<String> {
        // All but one request get no further.
        if !self.has_finding.load(Ordering::Acquire) || !self.has_finding.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.finding.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Logs what there is to say, and gives what is to go into Kong's log.
async fn look(source: &EntitySource) -> Option<String> {
    const RISK: &str = "Kong speaks MsgPack:1, and lets requests pass while this server does not answer unless the guard \
                        stands beside the plugin";
    let EntitySource::Directory(directory) = source else {
        tracing::warn!(
            "{RISK}; without a source of entities it cannot be looked for: see `mtls-auth guard --check`"
        );
        return None;
    };
    match directory.applied_plugins(&LOOKED_AT).await {
        Ok(entities) => {
            let warning = words::warning(&entities, &Coverage::of(&entities));
            if let Some(warning) = &warning {
                tracing::warn!("{warning}");
            }
            warning
        }
        Err(error) => {
            tracing::warn!(%error, "{RISK}; it could not be looked for: see `mtls-auth guard --check`");
            None
        }
    }
}

/// All that `guard` looks at.
///
/// # Errors
/// It cannot be read as a whole.
pub(super) async fn read(client: &AdminClient) -> Result<Entities, SourceError> {
    applied_plugins(client, &LOOKED_AT).await
}
