//! This knows for how long an answer, or a CRL, counts, and when to ask for the next one.

use std::time::{Duration, SystemTime};

use crate::ocsp::MAX_AGE_WITHOUT_NEXT_UPDATE;
use crate::{Answer, CLOCK_SKEW, Status};

/// For how long at most it counts that a responder does not know a certificate: it may be newer than what the responder has.
const UNKNOWN: Duration = Duration::from_secs(60);

/// Where in its life something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It counts.
    Young,
    /// It counts, and it is time to ask for the next one.
    Ageing,
    /// There may be something newer, which is to be asked for before it counts again.
    Over,
}

/// The life of an answer that was had at this time, for an instance with this `cert_cache_ttl`.
///
/// "Revoked" counts until there is to be something newer, whatever the instance says: to forget it early would let the
/// certificate pass where the responder is down.
pub(super) fn of_answer(answer: &Answer, fetched: SystemTime, ttl: Duration, now: SystemTime) -> Life {
    let remembered = later(fetched, ttl);
    let end = match (answer.status, answer.next_update) {
        (Status::Revoked { .. }, Some(next)) => next,
        (Status::Revoked { .. }, None) => remembered,
        (_, Some(next)) => next.min(remembered),
        (_, None) => later(answer.this_update, ttl.min(MAX_AGE_WITHOUT_NEXT_UPDATE)).min(remembered),
    };
    let end = match answer.status {
        Status::Unknown => end.min(later(fetched, UNKNOWN)),
        Status::Good | Status::Revoked { .. } => end,
    };
    between(fetched, end, now)
}

/// The life of a CRL that was had at this time. Once it is over, it may still count while there is no newer one: see
/// [`may_outlive`].
pub(super) fn of_crl(
    next_update: Option<SystemTime>,
    fetched: SystemTime,
    ttl: Duration,
    now: SystemTime,
) -> Life {
    let remembered = later(fetched, ttl);
    between(fetched, next_update.map_or(remembered, |next| next.min(remembered)), now)
}

/// Whether a CRL whose life is over may count for want of a newer one: until its own time is over, and `max_stale` more.
/// Where it says nothing of when that is, it does not outlive its life.
pub(super) fn may_outlive(next_update: Option<SystemTime>, max_stale: Duration, now: SystemTime) -> bool {
    next_update.is_some_and(|next| now <= later(next, max_stale))
}

fn between(begin: SystemTime, end: SystemTime, now: SystemTime) -> Life {
    // A clock that was set back does not say how old anything is.
    if now >= end || later(now, CLOCK_SKEW) < begin {
        return Life::Over;
    }
    let length = end.duration_since(begin).unwrap_or_default();
    if now >= later(begin, length / 4 * 3) { Life::Ageing } else { Life::Young }
}

/// Where the clock has no such time, at once.
fn later(time: SystemTime, duration: Duration) -> SystemTime {
    time.checked_add(duration).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const TTL: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    /// When an answer that was made at -10 and had at 0 ages and is over.
    fn life(status: Status, next_update: Option<u64>, ttl: Duration) -> (u64, u64) {
        let this_update = at(0) - Duration::from_secs(10);
        let answer = Answer { status, this_update, next_update: next_update.map(at) };
        let first = |life| {
            let is = |seconds: &u64| of_answer(&answer, at(0), ttl, at(*seconds)) == life;
            (0..1_000_000).find(is)
        };
        let over = first(Life::Over).unwrap();
        (first(Life::Ageing).unwrap_or(over), over)
    }

    #[test]
    fn an_answer_counts_until_the_next_one_and_no_longer_than_the_instance_says() {
        let revoked = Status::Revoked { since: None };
        for (status, next_update, ttl, expected) in [
            (Status::Good, Some(40), TTL, (30, 40)),
            (Status::Good, Some(400), TTL, (75, 100)),
            (Status::Good, None, TTL, (68, 90)),
            (Status::Good, None, 10 * HOUR, (2693, 3590)),
            (Status::Good, Some(400), Duration::ZERO, (0, 0)),
            (Status::Good, None, Duration::ZERO, (0, 0)),
            (Status::Unknown, Some(40), TTL, (30, 40)),
            (Status::Unknown, Some(400), TTL, (45, 60)),
            (revoked, Some(40), TTL, (30, 40)),
            (revoked, Some(400), TTL, (300, 400)),
            (revoked, Some(400), Duration::ZERO, (300, 400)),
            (revoked, None, TTL, (75, 100)),
        ] {
            assert_eq!(life(status, next_update, ttl), expected, "{status:?} {next_update:?} {ttl:?}");
        }
    }

    #[test]
    fn a_crl_is_looked_for_in_time_and_outlives_its_time_by_no_more_than_the_operator_says() {
        for (next_update, now, expected) in [
            (Some(40), 29, Life::Young),
            (Some(40), 30, Life::Ageing),
            (Some(40), 40, Life::Over),
            (Some(400), 75, Life::Ageing),
            (Some(400), 100, Life::Over),
            (None, 99, Life::Ageing),
            (None, 100, Life::Over),
        ] {
            assert_eq!(of_crl(next_update.map(at), at(0), TTL, at(now)), expected, "{next_update:?} {now}");
        }
        assert!(may_outlive(Some(at(40)), TTL, at(140)) && !may_outlive(Some(at(40)), TTL, at(141)));
        assert!(!may_outlive(None, TTL, at(1)));
    }

    #[test]
    fn nothing_counts_that_was_had_in_the_future() {
        let answer = Answer { status: Status::Good, this_update: at(0), next_update: Some(at(9000)) };
        assert_eq!(of_answer(&answer, at(100), HOUR, at(50)), Life::Young, "as far as clocks may differ");
        assert_eq!(of_answer(&answer, at(100), HOUR, at(39)), Life::Over);
    }
}
