//! This knows how a running binary tells how it fares: logs, metrics, health, and its end where it has stalled. Both
//! binaries tell it alike.

#![forbid(unsafe_code)]

mod histogram;
pub mod log;
mod notify;
mod process;
pub mod status;
mod watchdog;

pub use histogram::{Histogram, SECONDS};
pub use notify::Notify;
pub use process::registry;
pub use watchdog::{Pulse, Watchdog};

/// What metrics are made of.
pub use prometheus_client;
