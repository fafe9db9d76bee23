//! This knows how the binaries speak of what they do: to people on a terminal, in JSON to whatever else reads it.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log to standard error what the crate `program` and those that it shares with others say, from this level on.
pub fn start(level: LevelFilter, program: &'static str) {
    // Libraries below us would log header fields at their lower levels, and with them what clients keep secret.
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets([program, "kong_entities", "telemetry"].map(|target| (target, level)));
    let registry = tracing_subscriber::registry().with(targets);
    // A line that cannot be written, on a full disk or to a worker of Kong that has gone, is lost and no more: to complain
    // of it on the same standard error would be to panic.
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        registry.with(layer.with_target(false)).init();
    } else {
        registry.with(layer.json().flatten_event(true)).init();
    }
    // A panic ends one task; it must not break the form of the log.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "this is a bug: a task ended half-way")));
}
