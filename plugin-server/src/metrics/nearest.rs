//! This knows which of the clients' certificates that were seen lately ends first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For how long, and at most twice as long, a certificate counts as seen lately.
const LATELY: Duration = Duration::from_secs(3600);

/// No certificate.
const NONE: u64 = u64::MAX;

/// The ends of certificates, in seconds since 1970: the first of this span of time, and of the one before. Two requests
/// at the turn of a span may lose one of them, which comes again.
pub(super) struct Nearest {
    span: AtomicU64,
    current: AtomicU64,
    previous: AtomicU64,
}

impl Default for Nearest {
    fn default() -> Self {
        Self { span: AtomicU64::new(0), current: AtomicU64::new(NONE), previous: AtomicU64::new(NONE) }
    }
}

impl Nearest {
    /// A certificate with this end was seen.
    pub(super) fn note(&self, ends: SystemTime, now: SystemTime) {
        self.turn(now);
        self.current.fetch_min(seconds(ends), Ordering::Relaxed);
    }

    /// The first end of those seen lately, in seconds since 1970.
    pub(super) fn seen_lately(&self, now: SystemTime) -> Option<u64> {
        self.turn(now);
        let nearest = self.current.load(Ordering::Relaxed).min(self.previous.load(Ordering::Relaxed));
        (nearest != NONE).then_some(nearest)
    }

    fn turn(&self, now: SystemTime) {
        let span = seconds(now) / LATELY.as_secs();
        let before = self.span.load(Ordering::Relaxed);
        // One of them turns, whoever comes first.
        if before == span
            || self.span.compare_exchange(before, span, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let last = self.current.swap(NONE, Ordering::Relaxed);
        let is_next = before.checked_add(1) == Some(span);
        self.previous.store(if is_next { last } else { NONE }, Ordering::Relaxed);
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_counts_for_as_long_as_it_was_seen_lately() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let nearest = Nearest::default();
        assert_eq!(nearest.seen_lately(at(10 * 3600)), None);
        nearest.note(at(900_000), at(10 * 3600));
        nearest.note(at(500_000), at(10 * 3600 + 10));
        nearest.note(at(700_000), at(10 * 3600 + 20));
        assert_eq!(nearest.seen_lately(at(10 * 3600 + 30)), Some(500_000));
        nearest.note(at(800_000), at(11 * 3600));
        assert_eq!(nearest.seen_lately(at(12 * 3600 - 1)), Some(500_000));
        assert_eq!(nearest.seen_lately(at(12 * 3600)), Some(800_000));
        assert_eq!(nearest.seen_lately(at(20 * 3600)), None);
        // A clock that goes back.
        nearest.note(at(900_000), at(20 * 3600));
        assert_eq!(nearest.seen_lately(at(3600)), None);
    }
}
