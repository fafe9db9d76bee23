//! This knows for how long Kong has been waited for. The time that a client takes over the body of its request is not
//! Kong's, however long that is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Who is waited for in a request: Kong since a moment, or its client.
#[derive(Clone)]
pub(crate) struct Patience(Arc<Mutex<Option<Instant>>>);

impl Patience {
    /// Kong is waited for from now on.
    pub(crate) fn begin() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }

    /// Kong has been given all that the client has sent.
    pub(crate) fn with_kong(&self) {
        *self.since() = Some(Instant::now());
    }

    /// Kong would take more, and the client has not sent it yet.
    pub(crate) fn with_client(&self) {
        *self.since() = None;
    }

    /// Waits until Kong has been waited for so long.
    pub(crate) async fn ends(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let next = self.since().unwrap_or(now) + limit;
            if next <= now {
                return;
            }
            sleep_until(next).await;
        }
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_its_time_takes_none_of_kongs() {
        let limit = Duration::from_secs(60);
        let start = Instant::now();
        let patience = Patience::begin();
        let client = patience.clone();
        let sending = tokio::spawn(async move {
            sleep(Duration::from_secs(50)).await;
            client.with_client();
            sleep(Duration::from_secs(500)).await;
            for _ in 0..5 {
                client.with_kong();
                sleep(Duration::from_secs(50)).await;
            }
        });
        patience.ends(limit).await;
        sending.await.unwrap();
        // 60 seconds after the last of the body.
        assert_eq!(start.elapsed().as_secs(), 50 + 500 + 4 * 50 + 60);
    }
}
