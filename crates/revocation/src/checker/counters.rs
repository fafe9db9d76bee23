//! This knows how often sources were asked, and what came of it. Counting takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Said, Source, Status, Trouble};

/// All that can come of asking.
const RESULTS: usize = Status::CODES.len() + Trouble::CODES.len();

/// A counter for each source and each result.
#[derive(Debug)]
pub(super) struct Counters([[AtomicU64; RESULTS]; Source::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self(Source::ALL.map(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

/// The names of the results, in the order of the counters.
fn results() -> impl Iterator<Item = &'static str> {
    Status::CODES.into_iter().chain(Trouble::CODES)
}

impl Counters {
    pub(super) fn count(&self, said: &Said) {
        let source = Source::ALL.iter().position(|source| *source == said.source);
        let result = results().position(|result| result == said.code());
        if let (Some(source), Some(result)) = (source, result) {
            self.0[source][result].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Source, result and how often.
    pub(super) fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let of = |(source, counters): (Source, &[AtomicU64; RESULTS])| {
            let counts: Vec<_> = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect();
            results().zip(counts).map(move |(result, count)| (source.name(), result, count))
        };
        Source::ALL.into_iter().zip(&self.0).flat_map(of).collect()
    }
}
