//! This knows what the server counts of the requests that it decides about. Counting takes no lock, and no label comes
//! from a request.

mod collected;
mod nearest;

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use telemetry::Histogram;
use telemetry::prometheus_client::metrics::counter::Counter;
use telemetry::prometheus_client::metrics::family::Family;
use telemetry::prometheus_client::metrics::gauge::Gauge;
use telemetry::prometheus_client::registry::Registry;

use crate::access::Decision;
use crate::event::Spent;
use crate::reason::Reason;

pub(crate) use collected::Collected;
use nearest::Nearest;

/// Upper bounds for the calls that one request costs Kong.
const CALLS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What is counted.
pub(crate) struct Metrics {
    decisions: Family<Labels<2>, Counter>,
    /// All that there can be, so that a request looks nothing up under a lock.
    decided: HashMap<Decision, Counter>,
    durations: Family<Labels<1>, Histogram, fn() -> Histogram>,
    total: Histogram,
    kong: Histogram,
    own: Histogram,
    entities: Histogram,
    verify: Histogram,
    revocation: Histogram,
    calls: Histogram,
    in_flight: Gauge,
    abandoned: Counter,
    verified_hits: Counter,
    verified_misses: Counter,
    nearest: Nearest,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let decisions = Family::<Labels<2>, Counter>::default();
        let decided =
            all_decisions().map(|decision| (decision, decisions.get_or_create_owned(&labels(decision))));
        let durations: Family<_, _, fn() -> _> =
            Family::new_with_constructor(|| Histogram::new(telemetry::SECONDS));
        let phase = |name| durations.get_or_create_owned(&[("phase", name)]);
        Self {
            decided: decided.collect(),
            total: phase("total"),
            kong: phase("kong"),
            own: phase("own"),
            entities: phase("entities"),
            verify: phase("verify"),
            revocation: phase("revocation"),
            decisions,
            durations,
            calls: Histogram::new(CALLS),
            in_flight: Gauge::default(),
            abandoned: Counter::default(),
            verified_hits: Counter::default(),
            verified_misses: Counter::default(),
            nearest: Nearest::default(),
        }
    }

    /// Gives all of it names.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("decisions", "Requests by what was decided, and why", self.decisions.clone());
        registry.register(
            "access_duration_seconds",
            "How long the access phase took: total; kong, waiting for Kong's answers; own, the rest; and within it each \
             look-up of entities, each verification that was not remembered, and each check of revocation",
            self.durations.clone(),
        );
        registry.register(
            "rpc_calls",
            "Calls from Kong that one request cost, the one that began it included",
            self.calls.clone(),
        );
        registry.register(
            "events_in_flight",
            "Requests that are being decided about, or wait for Kong's answer to a call",
            self.in_flight.clone(),
        );
        registry.register(
            "events_abandoned",
            "Requests that Kong never came back for",
            self.abandoned.clone(),
        );
        registry.register(
            "verified_cache_hits",
            "Certificates that were known to be verified",
            self.verified_hits.clone(),
        );
        registry.register(
            "verified_cache_misses",
            "Certificates that had to be verified, with success or not",
            self.verified_misses.clone(),
        );
    }

    /// A request whose access phase begins now.
    pub(crate) fn request(&self) -> Request<'_> {
        self.in_flight.inc();
        Request { metrics: self, begun: Instant::now(), has_ended: false }
    }

    /// Counts a decision that was made at once.
    pub(crate) fn decided(&self, decision: Decision) {
        if let Some(counter) = self.decided.get(&decision) {
            counter.inc();
        }
    }

    /// Times a look-up of entities until it is dropped.
    pub(crate) fn entities(&self) -> Timed<'_> {
        Timed { histogram: &self.entities, begun: Instant::now() }
    }

    /// Times a verification until it is dropped.
    pub(crate) fn verify(&self) -> Timed<'_> {
        Timed { histogram: &self.verify, begun: Instant::now() }
    }

    /// Times a check of revocation until it is dropped.
    pub(crate) fn revocation(&self) -> Timed<'_> {
        Timed { histogram: &self.revocation, begun: Instant::now() }
    }

    /// Counts whether a certificate was known to be verified.
    pub(crate) fn remembered(&self, hit: bool) {
        let counter = if hit { &self.verified_hits } else { &self.verified_misses };
        counter.inc();
    }

    /// Takes note of when the certificate of a client ends.
    pub(crate) fn verified_until(&self, ends: SystemTime, now: SystemTime) {
        self.nearest.note(ends, now);
    }
}

/// The access phase of one request. Where it does not end, it was abandoned.
pub(crate) struct Request<'a> {
    metrics: &'a Metrics,
    begun: Instant,
    has_ended: bool,
}

impl Request<'_> {
    /// Counts how it ended, and what it cost.
    pub(crate) fn ended(mut self, decision: Decision, spent: Spent) {
        self.has_ended = true;
        let total = self.begun.elapsed();
        let metrics = self.metrics;
        metrics.decided(decision);
        metrics.total.observe_duration(total);
        metrics.kong.observe_duration(spent.waited);
        metrics.own.observe_duration(total.saturating_sub(spent.waited));
        metrics.calls.observe(f64::from(spent.calls + 1));
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if std::thread::panicking() {
            // Which is answered with a fault.
            self.metrics.decided(Decision::Refused(Reason::Internal));
        } else if !self.has_ended {
            self.metrics.abandoned.inc();
        }
    }
}

/// A time that is counted when this is dropped, however that comes about.
pub(crate) struct Timed<'a> {
    histogram: &'a Histogram,
    begun: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.histogram.observe_duration(self.begun.elapsed());
    }
}

/// Also those that do not happen with today's code: a counter too many harms nobody.
fn all_decisions() -> impl Iterator<Item = Decision> {
    let refused = Reason::all().iter().map(|reason| Decision::Refused(*reason));
    let anonymous = Reason::all().iter().filter(|reason| !reason.is_fault());
    let anonymous = anonymous.map(|reason| Decision::Anonymous(*reason));
    [Decision::Authenticated, Decision::LeftAlone].into_iter().chain(refused).chain(anonymous)
}

fn labels(decision: Decision) -> Labels<2> {
    let (outcome, reason) = match decision {
        Decision::Authenticated => ("passed", ""),
        Decision::LeftAlone => ("left_alone", ""),
        Decision::Anonymous(reason) => ("anonymous", reason.code()),
        Decision::Refused(reason) if reason.is_fault() => ("fault", reason.code()),
        Decision::Refused(reason) => ("refused", reason.code()),
    };
    [("outcome", outcome), ("reason", reason)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_does_not_end_is_abandoned_and_one_that_panics_a_fault() {
        let metrics = Metrics::new();
        let fault = &metrics.decided[&Decision::Refused(Reason::Internal)];
        let counted = || (metrics.in_flight.get(), metrics.abandoned.get(), fault.get());
        let request = metrics.request();
        assert_eq!(counted(), (1, 0, 0));
        drop(request);
        assert_eq!(counted(), (0, 1, 0));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _request = metrics.request();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(counted(), (0, 1, 1));
        metrics.request().ended(Decision::LeftAlone, Spent::default());
        assert_eq!(counted(), (0, 1, 1));
    }
}
