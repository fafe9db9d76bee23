//! This knows how the shim speaks of what it does: to people on a terminal, in JSON to whatever else reads it.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log to standard error.
pub(crate) fn start(level: LevelFilter) {
    // Libraries below us would log header fields at their lower levels, and with them what clients keep secret.
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("tls_shim", level)
        .with_target("kong_entities", level);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        registry.with(layer.with_target(false)).init();
    } else {
        registry.with(layer.json().flatten_event(true)).init();
    }
    // A panic ends one connection; it must not break the form of the log.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "this is a bug: a task ended half-way")));
}
