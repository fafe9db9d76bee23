//! This knows what the shim counts. No label comes from a client. Counting takes no lock, but for a request's, which waits
//! for nobody but one whose labels are new.

use std::collections::HashMap;
use std::hash::Hash;

use telemetry::Histogram;
use telemetry::prometheus_client::metrics::counter::Counter;
use telemetry::prometheus_client::metrics::family::Family;
use telemetry::prometheus_client::metrics::gauge::Gauge;
use telemetry::prometheus_client::registry::Registry;

use crate::record::{By, Finished, Observer, Side};
use crate::tls::Handshake;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What is counted.
pub(crate) struct Metrics {
    connections: Gauge,
    handshakes: Counted<4, (bool, bool, bool, bool)>,
    handshake_failures: Counted<1, Failure>,
    handshake_seconds: Histogram,
    requests: Family<Labels<3>, Counter>,
    request_seconds: Histogram,
    answer_seconds: Histogram,
    broken_off: Counted<1, Side>,
    reloads: Counted<1, bool>,
}

/// Why a connection came to no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// It took too long.
    Late,
    /// It came from where only fronts may, or its PROXY header is none.
    Front,
    /// The client ended it.
    Left,
    /// TLS: another version or cipher, no possession of the key, what is no TLS.
    Tls,
}

/// Counters of all that there can be, so that nothing is looked up under a lock.
struct Counted<const N: usize, K> {
    family: Family<Labels<N>, Counter>,
    counters: HashMap<K, Counter>,
}

impl<const N: usize, K: Copy + Eq + Hash> Counted<N, K> {
    fn new(all: impl IntoIterator<Item = K>, labels: impl Fn(K) -> Labels<N>) -> Self {
        let family = Family::<Labels<N>, Counter>::default();
        let counters = all.into_iter().map(|key| (key, family.get_or_create_owned(&labels(key))));
        Self { counters: counters.collect(), family }
    }

    fn count(&self, key: K) {
        if let Some(counter) = self.counters.get(&key) {
            counter.inc();
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let yes = |yes: bool| if yes { "true" } else { "false" };
        let flags = (0..16).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0, bits & 8 > 0));
        let failures = [Failure::Late, Failure::Front, Failure::Left, Failure::Tls];
        Self {
            connections: Gauge::default(),
            handshakes: Counted::new(flags, |(is_1_3, asked, presented, resumed)| {
                [
                    ("version", if is_1_3 { "TLSv1.3" } else { "TLSv1.2" }),
                    ("asked", yes(asked)),
                    ("presented", yes(presented)),
                    ("resumed", yes(resumed)),
                ]
            }),
            handshake_failures: Counted::new(failures, |failure| {
                let reason = match failure {
                    Failure::Late => "late",
                    Failure::Front => "front",
                    Failure::Left => "left",
                    Failure::Tls => "tls",
                };
                [("reason", reason)]
            }),
            handshake_seconds: Histogram::new(telemetry::SECONDS),
            requests: Family::default(),
            request_seconds: Histogram::new(telemetry::SECONDS),
            answer_seconds: Histogram::new(telemetry::SECONDS),
            broken_off: Counted::new([Side::Client, Side::Upstream, Side::Shim], |side| {
                [("by", side.name())]
            }),
            reloads: Counted::new([true, false], |whole| {
                [("result", if whole { "whole" } else { "failed" })]
            }),
        }
    }

    /// Gives all of it names.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections of clients", self.connections.clone());
        registry.register(
            "handshakes",
            "TLS handshakes that ended well, by version, whether the client was asked for a certificate, presented one, and \
             resumed a session",
            self.handshakes.family.clone(),
        );
        registry.register(
            "handshake_failures",
            "Connections that came to no request: late; not from a front, or without its PROXY header; left by the client; \
             or for TLS",
            self.handshake_failures.family.clone(),
        );
        registry.register(
            "handshake_duration_seconds",
            "How long handshakes took, waiting for the client included",
            self.handshake_seconds.clone(),
        );
        registry.register(
            "requests",
            "Requests that have ended, by the class of their status, who answered, and why where that was the shim",
            self.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "From the header of a request to the end of its answer",
            self.request_seconds.clone(),
        );
        registry.register(
            "answer_duration_seconds",
            "From the header of a request to that of Kong's answer",
            self.answer_seconds.clone(),
        );
        registry.register(
            "requests_broken_off",
            "Requests that ended before their time, by who ended them",
            self.broken_off.family.clone(),
        );
        registry.register(
            "reloads",
            "Times that all was read again, by SIGHUP or for a change of shim.yml, and whether all of it could be used",
            self.reloads.family.clone(),
        );
    }

    /// A connection, counted as open until this is dropped.
    pub(crate) fn open(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// Counts a handshake that ended well.
    pub(crate) fn connected(&self, handshake: &Handshake) {
        let Handshake { version, asked, presented, resumed, took, .. } = handshake;
        self.handshakes.count((*version == "TLSv1.3", *asked, presented.is_some(), *resumed));
        self.handshake_seconds.observe_duration(*took);
    }

    /// Counts a connection that came to no request.
    pub(crate) fn failed(&self, failure: Failure) {
        self.handshake_failures.count(failure);
    }

    /// Counts a time that all was read again.
    pub(crate) fn reloaded(&self, whole: bool) {
        self.reloads.count(whole);
    }
}

impl Observer for std::sync::Arc<Metrics> {
    fn finished(&self, request: &Finished<'_>) {
        let class = request.answer.map_or("none", |(status, _)| match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        });
        let (by, reason) = match request.answer {
            Some((_, By::Kong)) => ("kong", ""),
            Some((_, By::Shim(reason))) => ("shim", reason),
            None => ("nobody", ""),
        };
        self.requests.get_or_create(&[("class", class), ("answered_by", by), ("reason", reason)]).inc();
        self.request_seconds.observe_duration(request.took);
        if let Some(answered) = request.answered_after {
            self.answer_seconds.observe_duration(answered);
        }
        if let Some(side) = request.broken_off {
            self.broken_off.count(side);
        }
    }
}

/// An open connection.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
