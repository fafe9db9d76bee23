//! This knows when a server that has failed is left alone, and when it is tried again. Without clock or I/O.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row are taken for more than bad luck.
const FAILURES: u32 = 3;

/// How long it is left alone at first; twice as long each time that it fails again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// And no longer than that: one that is mended is found again within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of one server.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// Leave to ask the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Like anybody else.
    Free,
    /// As the only one, to find out whether it works again.
    Probe,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server works.
    Works,
    /// It does not.
    Fails,
    /// Nothing is known: nobody waited for the end, or what went wrong was no fault of the server's.
    Undecided,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { failures: 0, state: State::Closed }
    }

    /// Whether the server is left alone, and after how many failures. Decides nothing.
    pub(super) fn check(&self, now: Instant) -> Result<(), u32> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until, .. } if now >= until => Ok(()),
            State::Open { .. } | State::Probing { .. } => Err(self.failures),
        }
    }

    /// Gives leave to ask. [`Self::went`] must be called when that has come to an end.
    ///
    /// # Errors
    /// It is left alone, after so many failures.
    pub(super) fn enter(&mut self, now: Instant) -> Result<Leave, u32> {
        self.check(now)?;
        let State::Open { pause, .. } = self.state else { return Ok(Leave::Free) };
        self.state = State::Probing { pause };
        Ok(Leave::Probe)
    }

    /// Is told how it went.
    pub(super) fn went(&mut self, leave: Leave, verdict: Verdict, now: Instant) {
        match (verdict, leave, self.state) {
            (Verdict::Works, _, _) => *self = Self::new(),
            (Verdict::Fails, Leave::Free, State::Closed) => {
                self.failures += 1;
                if self.failures >= FAILURES {
                    self.state = State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE };
                }
            }
            // It began before the server was left alone, and tells nothing new: many that fail together are one failure.
            (Verdict::Fails, Leave::Free, State::Open { .. } | State::Probing { .. }) => {}
            (Verdict::Fails, Leave::Probe, State::Probing { pause }) => {
                self.failures = self.failures.saturating_add(1);
                let pause = (2 * pause).min(LONGEST_PAUSE);
                self.state = State::Open { until: now + pause, pause };
            }
            // Another one may find out.
            (Verdict::Undecided, Leave::Probe, State::Probing { pause }) => {
                self.state = State::Open { until: now, pause };
            }
            // Of a probe that somebody else's success has made needless.
            (Verdict::Fails | Verdict::Undecided, Leave::Probe, State::Closed | State::Open { .. }) => {}
            (Verdict::Undecided, Leave::Free, _) => {}
        }
    }

    /// Whether it has failed so often that it is left alone, or is being probed after that.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server {
        breaker: Breaker,
        now: Instant,
    }

    impl Server {
        fn new() -> Self {
            Self { breaker: Breaker::new(), now: Instant::now() }
        }

        fn enter(&mut self) -> Result<Leave, u32> {
            self.breaker.enter(self.now)
        }

        fn went(&mut self, leave: Leave, verdict: Verdict) {
            self.breaker.went(leave, verdict, self.now);
        }

        fn ask(&mut self, verdict: Verdict) -> Result<(), u32> {
            let leave = self.enter()?;
            self.went(leave, verdict);
            Ok(())
        }

        /// Fails so often that it is left alone.
        fn broken() -> Self {
            let mut server = Self::new();
            for _ in 0..FAILURES {
                server.ask(Verdict::Fails).unwrap();
            }
            server
        }

        fn wait(&mut self, seconds: f64) {
            self.now += Duration::from_secs_f64(seconds);
        }
    }

    #[test]
    fn three_failures_in_a_row_leave_a_server_alone() {
        let mut server = Server::new();
        for verdict in [
            Verdict::Fails,
            Verdict::Fails,
            Verdict::Works,
            Verdict::Fails,
            Verdict::Undecided,
            Verdict::Fails,
        ] {
            server.ask(verdict).unwrap();
        }
        assert!(!server.breaker.is_open());
        server.ask(Verdict::Fails).unwrap();
        assert_eq!(server.enter(), Err(3));
        assert!(server.breaker.is_open());
    }

    #[test]
    fn a_pause_doubles_up_to_a_minute() {
        let mut server = Server::broken();
        for (nth, pause) in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0].into_iter().enumerate() {
            server.wait(pause - 0.001);
            assert_eq!(server.enter(), Err(3 + nth as u32), "before {pause}");
            server.wait(0.001);
            server.ask(Verdict::Fails).unwrap();
        }
        server.wait(60.0);
        server.ask(Verdict::Works).unwrap();
        assert_eq!(server.enter(), Ok(Leave::Free));
        assert!(!server.breaker.is_open());
        for _ in 0..FAILURES {
            assert!(!server.breaker.is_open());
            server.ask(Verdict::Fails).unwrap();
        }
        server.wait(1.0);
        assert_eq!(server.enter(), Ok(Leave::Probe), "the pause begins anew with one second");
    }

    #[test]
    fn one_at_a_time_finds_out_whether_it_works_again() {
        let mut server = Server::broken();
        server.wait(1.0);
        assert_eq!(server.breaker.check(server.now), Ok(()), "to look is not to enter");
        assert_eq!(server.enter(), Ok(Leave::Probe));
        assert_eq!((server.enter(), server.breaker.check(server.now)), (Err(3), Err(3)));
        server.wait(3600.0);
        assert_eq!(server.enter(), Err(3), "however long it takes");
        assert!(server.breaker.is_open());
        server.went(Leave::Probe, Verdict::Works);
        assert_eq!(server.enter(), Ok(Leave::Free));
    }

    #[test]
    fn a_probe_that_nobody_waits_for_lets_another_one_in_at_once() {
        let mut server = Server::broken();
        server.wait(1.0);
        server.ask(Verdict::Undecided).unwrap();
        assert_eq!(server.enter(), Ok(Leave::Probe));
        server.went(Leave::Probe, Verdict::Fails);
        server.wait(1.999);
        assert_eq!(server.enter(), Err(4), "the pause is as if nothing had been between");
        server.wait(0.001);
        assert_eq!(server.enter(), Ok(Leave::Probe));
    }

    #[test]
    fn many_that_fail_together_are_one_failure() {
        let mut server = Server::new();
        let all: Vec<_> = (0..8).map(|_| server.enter().unwrap()).collect();
        for leave in all {
            server.went(leave, Verdict::Fails);
        }
        server.wait(1.0);
        assert_eq!(server.enter(), Ok(Leave::Probe));
        server.went(Leave::Free, Verdict::Fails);
        assert_eq!(server.enter(), Err(3), "also while it is probed");
        server.went(Leave::Free, Verdict::Works);
        assert_eq!(server.enter(), Ok(Leave::Free), "a late success is one");
    }
}
