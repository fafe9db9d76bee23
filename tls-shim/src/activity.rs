//! This knows whether a connection has requests that run, and since when it has none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The requests of one connection.
pub(crate) struct Activity {
    state: Mutex<State>,
    begun: Notify,
}

struct State {
    running: usize,
    /// The end of the last request; the beginning of the connection before there is one.
    quiet_since: Instant,
}

/// A request that runs until this is dropped.
pub(crate) struct Running(Arc<Activity>);

impl Default for Activity {
    fn default() -> Self {
        let state = Mutex::new(State { running: 0, quiet_since: Instant::now() });
        Self { state, begun: Notify::new() }
    }
}

impl Activity {
    /// Counts a request in.
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        self.state().running += 1;
        // Kept for who waits later.
        self.begun.notify_one();
        Running(Arc::clone(self))
    }

    /// Waits until there has been a request. For one that waits, once.
    pub(crate) async fn first(&self) {
        self.begun.notified().await;
    }

    /// Waits until no request has run for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let next = self.idle_from(limit);
            if next <= Instant::now() {
                return;
            }
            sleep_until(next).await;
        }
    }

    /// The first moment at which no request may have run for so long.
    pub(crate) fn idle_from(&self, limit: Duration) -> Instant {
        let state = self.state();
        let quiet_since = if state.running > 0 { Instant::now() } else { state.quiet_since };
        quiet_since + limit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.quiet_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_is_counted_from_the_end_of_the_last_request() {
        let activity = Arc::new(Activity::default());
        let limit = Duration::from_secs(60);
        let start = Instant::now();
        let running = activity.begin();
        let ended = tokio::spawn(async move {
            sleep_until(start + Duration::from_secs(200)).await;
            drop(running);
        });
        activity.idle(limit).await;
        ended.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 260);
    }
}
