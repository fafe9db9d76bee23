//! This knows what any process tells of itself: which build it is, and since when it runs.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A registry whose names begin with `prefix`, with the version and the time of the start in it. Called at the start.
pub fn registry(prefix: &str, version: &'static str) -> Registry {
    let mut registry = Registry::with_prefix(prefix);
    registry.register("build", "The version that runs", Info::new([("version", version)]));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    registry.register(
        "start_timestamp_seconds",
        "When the process started, in seconds since 1970",
        ConstGauge::new(now.as_secs_f64()),
    );
    registry
}
