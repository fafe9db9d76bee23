//! This knows what is being asked right now, so that nothing is asked twice at once, and that an answer which comes too late
//! for whoever waited for it is there for the next.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What is being asked, by key.
#[derive(Debug)]
pub(super) struct Flights<K, V>(Arc<Mutex<HashMap<K, Running<V>>>>);

/// What brings the value, and since when.
type Running<V> = (watch::Receiver<Option<V>>, Instant);

/// One that runs, or has ended: whoever lets go of it does not end it.
#[derive(Debug)]
pub(super) struct Flight<V>(Running<V>);

/// Why a flight brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It still runs, for so long by now.
    Late(Duration),
    /// It ended in a panic, or the runtime ends.
    Crashed,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The flight with this key; where none runs, it begins now, and goes on whoever waits for it.
    pub(super) fn join<F>(&self, key: K, begin: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = lock(&self.0);
        if let Some(flight) = running.get(&key) {
            return Flight(flight.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let brings = (receiver, Instant::now());
        running.insert(key.clone(), brings.clone());
        let landing = Landing { running: Arc::clone(&self.0), key };
        let flight = begin();
        tokio::spawn(async move {
            let landing = landing;
            // It leaves what it brings in the memory of the checker first: whoever finds no flight any more finds that.
            let brought = flight.await;
            sender.send_replace(Some(brought));
            drop(landing);
        });
        Flight(brings)
    }
}

impl<V: Clone> Flight<V> {
    /// What it brings, if it does until the deadline. A flight that has run for as long as that already has made somebody wait
    /// in vain, and nobody waits for it again: a server that hangs would make each request as slow as its time allows.
    pub(super) async fn land(self, deadline: Instant) -> Result<V, Lost> {
        let Self((mut brought, begun)) = self;
        let now = Instant::now();
        let hangs = now.saturating_duration_since(begun) >= deadline.saturating_duration_since(now);
        match timeout_at(if hangs { now } else { deadline }, brought.wait_for(Option::is_some)).await {
            Ok(Ok(brought)) => brought.clone().ok_or(Lost::Crashed),
            Ok(Err(_)) => Err(Lost::Crashed),
            Err(_) => Err(Lost::Late(begun.elapsed())),
        }
    }
}

/// Makes room for the next flight with this key, however this one ends.
struct Landing<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, Running<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn count(begun: &Arc<AtomicU32>) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = u32> + Send>> {
        let begun = Arc::clone(begun);
        move || {
            Box::pin(async move {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(10 * SECOND).await;
                number
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_wait_for_one_flight_and_other_keys_have_their_own() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let deadline = Instant::now() + 20 * SECOND;
        let many: Vec<_> = (0..100).map(|_| flights.join("a", count(&begun))).collect();
        let other = flights.join("b", count(&begun));
        for flight in many {
            assert_eq!(flight.land(deadline).await, Ok(1));
        }
        assert_eq!(other.land(deadline).await, Ok(2));
        assert!(lock(&flights.0).is_empty(), "what has landed is not remembered here");
        assert_eq!(flights.join("a", count(&begun)).land(deadline + 20 * SECOND).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_goes_on_when_nobody_waits_any_more() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let now = Instant::now();
        assert_eq!(
            flights.join("a", count(&begun)).land(now + 4 * SECOND).await,
            Err(Lost::Late(4 * SECOND))
        );
        drop(flights.join("a", count(&begun)));
        tokio::time::advance(SECOND).await;
        assert_eq!(flights.join("a", count(&begun)).land(now + 11 * SECOND).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_that_hangs_is_waited_for_once() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let patience = 4 * SECOND;
        assert_eq!(
            flights.join("a", count(&begun)).land(Instant::now() + patience).await,
            Err(Lost::Late(patience))
        );
        let again = Instant::now();
        assert_eq!(flights.join("a", count(&begun)).land(again + patience).await, Err(Lost::Late(patience)));
        assert_eq!(again.elapsed(), Duration::ZERO);
        // What it has brought by then counts all the same.
        let other = flights.join("a", count(&begun));
        tokio::time::sleep(7 * SECOND).await;
        assert_eq!(other.land(Instant::now() + patience).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_is_told_and_the_next_begins_anew() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let deadline = Instant::now() + 20 * SECOND;
        let crash: Flight<u32> = flights.join("a", || async { panic!("on purpose") });
        assert_eq!(crash.land(deadline).await, Err(Lost::Crashed));
        assert_eq!(flights.join("a", count(&begun)).land(deadline).await, Ok(1));
    }
}
