//! This knows how many connections of clients there may be at a time.
//!
//! Whoever comes when there are so many waits in the backlog of the listener, as if the shim were slow: nobody is turned
//! away, and who is being served has what it needs. A client that is not served costs a file descriptor at most once a
//! listener.

use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::limits;

/// Places for connections.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    /// When the log was last told that there is none free.
    said: Mutex<Option<Instant>>,
}

/// A place, until this is dropped.
pub(crate) struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Places {
    /// As many as are set, or else as many as the file descriptors are good for, of which it gets as many as it may.
    pub(crate) fn new(set: Option<usize>) -> Self {
        let good_for = good_for(descriptors());
        let most = set.unwrap_or_else(|| good_for.min(limits::CONNECTIONS));
        if most > good_for {
            tracing::warn!(
                connections = most,
                good_for,
                "there may be more connections of clients than the file descriptors are good for (ulimit -n)"
            );
        }
        Self { free: Arc::new(Semaphore::new(most)), most, said: Mutex::default() }
    }

    /// The next that is free. Who has waited longest gets it.
    pub(crate) async fn take(&self) -> Place {
        let free = Arc::clone(&self.free);
        let place = match Arc::clone(&free).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.say();
                free.acquire_owned().await.expect("nobody closes it")
            }
        };
        Place(place)
    }

    fn say(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= limits::FULL_SAID) {
            *said = Some(Instant::now());
            tracing::warn!(
                connections = self.most,
                "there are as many connections of clients as there may be: others wait until one ends"
            );
        }
    }
}

/// The file descriptors that the shim may have, the most that the system lets it.
fn descriptors() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() => hard.max(soft),
        Ok((soft, _)) => soft,
        // It cannot be told, so they are not what there is too little of.
        Err(_) => u64::MAX,
    }
}

/// For how many clients they are enough: each needs one, and another for the connection to Kong.
fn good_for(descriptors: u64) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    (descriptors.saturating_sub(limits::OTHER_DESCRIPTORS) / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_needs_two_descriptors() {
        for (descriptors, clients) in [(0, 1), (33, 1), (1024, 496), (65_536, 32_752)] {
            assert_eq!(good_for(descriptors), clients);
        }
        assert!(good_for(u64::MAX) > limits::CONNECTIONS);
    }
}
