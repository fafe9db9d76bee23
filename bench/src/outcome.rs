//! This knows what came of a load.

use std::time::Duration;

use serde::Serialize;

/// What came of a load.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// How many requests were answered with 200.
    pub(crate) done: u64,
    /// How many connections were resumed.
    pub(crate) resumed: u64,
    /// How many bytes of bodies came back.
    pub(crate) bytes_down: u64,
    /// How long it took as a whole, in seconds.
    pub(crate) seconds: f64,
    /// From the first byte that was sent to the last that came back, in microseconds.
    pub(crate) p50_us: f64,
    /// The same.
    pub(crate) p99_us: f64,
    #[serde(skip)]
    times: Vec<Duration>,
}

impl Outcome {
    /// Takes note of an answer.
    pub(crate) fn answered(&mut self, took: Duration, bytes: u64) {
        self.done += 1;
        self.bytes_down += bytes;
        self.times.push(took);
    }

    /// Both together.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.done += other.done;
        self.resumed += other.resumed;
        self.bytes_down += other.bytes_down;
        self.times.extend(other.times);
        self
    }

    /// The end of it, after so long.
    pub(crate) fn after(mut self, took: Duration) -> Self {
        self.seconds = took.as_secs_f64();
        self.times.sort_unstable();
        let quantile = |q: f64| {
            let position = ((self.times.len() as f64 * q) as usize).min(self.times.len().saturating_sub(1));
            self.times.get(position).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        (self.p50_us, self.p99_us) = (quantile(0.50), quantile(0.99));
        self
    }
}
