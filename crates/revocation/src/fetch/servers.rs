//! This knows the servers that have been asked lately: how many ask one at a time, and whether it is left alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Settings;
use super::breaker::{Breaker, Leave, Verdict};
use super::url::Server;
use crate::Trouble;

/// So many fetches at a time, whoever they ask.
const CONCURRENT: usize = 64;

/// So many of them ask the same server. Those that time out are no more, so that one server that hangs leaves room for others.
const CONCURRENT_PER_SERVER: usize = 8;

/// So many servers are remembered. URLs stand in certificates that CAs signed, so there are few.
const SERVERS: u64 = 1024;

/// Whoever has not been asked for so long is asked as if never before: well above the longest time to be left alone.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The servers, each under the settings of those who ask: a proxy that fails is no failure of those who use another.
#[derive(Debug)]
pub(super) struct Servers {
    permits: Arc<Semaphore>,
    known: Cache<(Server, Settings), Arc<Known>>,
}

#[derive(Debug)]
struct Known {
    permits: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
}

/// A place among those who ask. It is free again when this goes.
pub(super) type Place = [OwnedSemaphorePermit; 2];

/// Leave to ask a server. What is dropped without a verdict counts as nothing.
#[derive(Debug)]
pub(super) struct Attempt {
    known: Arc<Known>,
    leave: Leave,
    verdict: Verdict,
}

impl Servers {
    pub(super) fn new() -> Self {
        let known = Cache::builder().max_capacity(SERVERS).time_to_idle(FORGOTTEN).build();
        Self { permits: Arc::new(Semaphore::new(CONCURRENT)), known }
    }

    /// Waits for a place, and leave to ask.
    ///
    /// # Errors
    /// The server is left alone, also where it has come to that only while we waited.
    pub(super) async fn enter(
        &self,
        server: &Server,
        settings: &Settings,
    ) -> Result<(Attempt, Place), Trouble> {
        let known = self.known.get_with((server.clone(), settings.clone()), Arc::default);
        known.breaker().check(Instant::now()).map_err(Trouble::LeftAlone)?;
        // First that of the server: those who wait for it must not keep others from theirs.
        let theirs = acquire(&known.permits).await;
        let ours = acquire(&self.permits).await;
        let leave = known.breaker().enter(Instant::now()).map_err(Trouble::LeftAlone)?;
        Ok((Attempt { known, leave, verdict: Verdict::Undecided }, [theirs, ours]))
    }

    /// How many are left alone.
    pub(super) fn left_alone(&self) -> usize {
        self.known.iter().filter(|(_, known)| known.breaker().is_open()).count()
    }
}

impl Default for Known {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(CONCURRENT_PER_SERVER)), breaker: Mutex::new(Breaker::new()) }
    }
}

impl Known {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Says how it went.
    pub(super) fn went(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.known.breaker().went(self.leave, self.verdict, Instant::now());
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(permits).acquire_owned().await.expect("it is never closed")
}
