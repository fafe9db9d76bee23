//! This knows the kinds of load.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::front::{Connection, Error, Front};
use crate::outcome::Outcome;

/// How many are left to be done, by whoever comes first.
#[derive(Clone)]
struct Left(Arc<AtomicU64>);

impl Left {
    fn new(count: u64) -> Self {
        Self(Arc::new(AtomicU64::new(count)))
    }

    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Connections with one request each.
pub(crate) async fn handshakes(
    front: Front,
    count: u64,
    at_once: usize,
    resume: bool,
) -> Result<Outcome, Error> {
    let left = Left::new(count);
    let mut places = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..at_once {
        let (front, left) = (front.clone(), left.clone());
        places.spawn(async move {
            let mut outcome = Outcome::default();
            while left.take() {
                let begun = Instant::now();
                let mut connection = front.connect(resume).await?;
                let bytes = connection.ask(Bytes::new()).await?;
                outcome.answered(begun.elapsed(), bytes);
                outcome.resumed += u64::from(connection.resumed);
            }
            Ok(outcome)
        });
    }
    all(places, begun).await
}

/// Requests on connections that are kept.
pub(crate) async fn requests(
    front: Front,
    count: u64,
    connections: usize,
    streams: usize,
    upload: usize,
) -> Result<Outcome, Error> {
    let body = Bytes::from(vec![b'x'; upload]);
    let left = Left::new(count);
    let mut askers: Vec<Connection> = Vec::new();
    for _ in 0..connections {
        let mut connection = front.connect(false).await?;
        // A connection, and what the front keeps towards its upstream, is there before the time counts.
        connection.ask(Bytes::new()).await?;
        let others: Vec<_> = (1..streams).filter_map(|_| connection.share()).collect();
        askers.push(connection);
        askers.extend(others);
    }
    let mut places = JoinSet::new();
    let begun = Instant::now();
    for mut connection in askers {
        let (left, body) = (left.clone(), body.clone());
        places.spawn(async move {
            let mut outcome = Outcome::default();
            while left.take() {
                let begun = Instant::now();
                let bytes = connection.ask(body.clone()).await?;
                outcome.answered(begun.elapsed(), bytes);
            }
            Ok(outcome)
        });
    }
    all(places, begun).await
}

/// Requests at a steady rate. The time of each counts from when it was due, so that a front which stalls cannot hide it.
pub(crate) async fn rate(
    front: Front,
    rate: f64,
    seconds: f64,
    connections: usize,
) -> Result<Outcome, Error> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = front.connect(false).await?;
        connection.ask(Bytes::new()).await?;
        open.push(connection);
    }
    let each = rate / connections as f64;
    let count = (each * seconds) as u32;
    let mut places = JoinSet::new();
    let begun = Instant::now();
    for (position, mut connection) in open.into_iter().enumerate() {
        places.spawn(async move {
            let mut outcome = Outcome::default();
            let offset = Duration::from_secs_f64(position as f64 / rate);
            for number in 0..count {
                let due = begun + offset + Duration::from_secs_f64(f64::from(number) / each);
                tokio::time::sleep_until(due.into()).await;
                let bytes = connection.ask(Bytes::new()).await?;
                outcome.answered(due.elapsed(), bytes);
            }
            Ok(outcome)
        });
    }
    all(places, begun).await
}

/// Connections that are kept after one request each. Says `idle` when all are there.
pub(crate) async fn idle(front: Front, count: usize) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    let begun = Instant::now();
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        let asked = Instant::now();
        let mut connection = front.connect(false).await?;
        let bytes = connection.ask(Bytes::new()).await?;
        outcome.answered(asked.elapsed(), bytes);
        kept.push(connection);
    }
    println!("idle");
    let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    closed.await??;
    drop(kept);
    Ok(outcome.after(begun.elapsed()))
}

async fn all(mut places: JoinSet<Result<Outcome, Error>>, begun: Instant) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    while let Some(place) = places.join_next().await {
        outcome = outcome.with(place??);
    }
    Ok(outcome.after(begun.elapsed()))
}
