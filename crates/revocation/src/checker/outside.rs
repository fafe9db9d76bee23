//! This knows what a checker has of the world outside: servers to ask, and the time.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use telemetry::Histogram;

use crate::Trouble;
use crate::fetch::{self, Fetcher, Query, Settings};

/// The world outside.
pub(super) struct Outside {
    servers: Servers,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    /// How long fetches took.
    pub(super) times: Histogram,
}

enum Servers {
    Real(Fetcher),
    #[cfg(test)]
    MadeUp(super::tests::Answers),
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

impl Outside {
    /// # Errors
    /// Those of [`Fetcher::new`].
    pub(super) fn new(options: fetch::Options) -> Result<Self, String> {
        let times = Histogram::new(telemetry::SECONDS);
        let counted = times.clone();
        let fetcher = Fetcher::new(options)?.observed(move |took, _| counted.observe_duration(took));
        Ok(Self { servers: Servers::Real(fetcher), clock: Box::new(SystemTime::now), times })
    }

    /// One whose servers answer this, and whose clock is this one.
    #[cfg(test)]
    pub(super) fn made_up(
        answers: super::tests::Answers,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let times = Histogram::new(telemetry::SECONDS);
        Self { servers: Servers::MadeUp(answers), clock: Box::new(clock), times }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// As [`Fetcher::fetch`].
    pub(super) async fn fetch<T, F>(
        &self,
        query: Query<'_>,
        settings: &Settings,
        read: impl FnOnce(Bytes) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        match &self.servers {
            Servers::Real(fetcher) => fetcher.fetch(query, settings, read).await,
            #[cfg(test)]
            Servers::MadeUp(answers) => read(answers.answer(&query, settings).await?).await,
        }
    }

    /// How many servers are left alone because they have failed.
    pub(super) fn left_alone(&self) -> usize {
        match &self.servers {
            Servers::Real(fetcher) => fetcher.left_alone(),
            #[cfg(test)]
            Servers::MadeUp(_) => 0,
        }
    }
}
