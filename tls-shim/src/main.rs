//! `tls-shim`: a TLS terminator beside Kong that asks for client certificates per SNI and hands them on with proof.
//!
//! This knows the order of things: command line, log, settings, what they name, listeners, serving, reloading, draining.

mod activity;
mod answer;
mod authority;
mod body;
mod ca_names;
mod check;
mod cli;
mod connection;
mod dial;
mod distinguished_name;
mod file;
mod grpc;
mod handoff;
mod headers;
mod kept;
mod limits;
mod list;
mod listen;
mod log;
mod multiplexed;
mod patience;
mod places;
mod proxy;
mod proxy_protocol;
mod reload;
mod settings;
mod sni;
mod source;
mod stall;
mod start;
mod tls;
mod tunnel;
mod upstream;
mod websocket;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{Cli, Command};
use crate::reload::Running;
use crate::settings::Settings;
use crate::start::StartError;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Check { config }) = cli.command {
        return check::check(&config).await;
    }
    log::start(cli.log_level);
    let config = cli.config.unwrap_or_default();
    match run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Path) -> Result<(), StartError> {
    let mut end = Signals::register()?;
    // From now on: one that comes during the start reloads after it.
    let hangup = signal(SignalKind::hangup())?;
    let settings = Settings::read(config)?;
    let (shim, following) = tokio::select! {
        begun = start::shim(&settings) => begun?,
        // The Admin API may take its time.
        signal = end.next() => {
            tracing::info!(signal, "ended before it began");
            return Ok(());
        }
    };
    let shim = Arc::new(ArcSwap::from_pointee(shim));
    let listeners =
        settings.listen.0.iter().map(|&address| listen::bind(address)).collect::<Result<Vec<_>, _>>()?;

    let drain = CancellationToken::new();
    let connections = TaskTracker::new();
    for listener in listeners {
        tracing::info!(addr = %listener.local_addr()?, "listening");
        tokio::spawn(listen::accept(listener, Arc::clone(&shim), connections.clone(), drain.clone()));
    }
    let grace = settings.time_limits.drain;
    let running = Running { config: config.to_owned(), begun_with: settings, shim, following };
    let reloading = tokio::spawn(running.reload_on(hangup));

    let signal = end.next().await;
    reloading.abort();
    tracing::info!(signal, connections = connections.len(), "draining");
    drain.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => tracing::info!("drained"),
        () = sleep(grace) => tracing::warn!(connections = connections.len(), "cut off what still ran"),
        signal = end.next() => tracing::warn!(signal, connections = connections.len(), "cut off what still ran"),
    }
    Ok(())
}

/// The signals that end the shim.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal that asks the shim to end.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
