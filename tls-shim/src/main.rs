//! `tls-shim`: a TLS terminator beside Kong that asks for client certificates per SNI and hands them on with proof.
//!
//! This knows the order of things: command line, log, settings, what they name, listeners, serving, reloading, handing
//! over, draining.

mod access_log;
mod activity;
mod answer;
mod apart;
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
mod health;
mod inherited;
mod kept;
mod limits;
mod list;
mod listen;
mod lull;
mod metrics;
mod multiplexed;
mod patience;
mod places;
mod plugin_server;
mod proxy;
mod proxy_protocol;
mod ready;
mod record;
mod reload;
mod settings;
mod sni;
mod source;
mod stall;
mod start;
mod takeover;
mod tls;
mod tunnel;
mod untaken;
mod upstream;
mod watched;
mod websocket;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::{CommandFactory, Parser};
use telemetry::status;
use telemetry::{Notify, Watchdog};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::{AccessLog, Writing};
use crate::cli::{Cli, Command};
use crate::inherited::Inherited;
use crate::metrics::Metrics;
use crate::record::{Observer, Observers};
use crate::reload::Running;
use crate::settings::Settings;
use crate::start::StartError;
use crate::watched::Watched;

fn main() -> ExitCode {
    let hardened = hardening::harden();
    let cli = Cli::parse();
    let inherited = match cli.command {
        Some(_) => Inherited::default(),
        None => {
            // Before there are other threads.
            let inherited = Inherited::take();
            telemetry::log::start(cli.log_level, "tls_shim");
            if let Err(error) = hardened {
                tracing::warn!(%error, "keys may get into a core dump");
            }
            inherited
        }
    };
    let (code, writing) = serve(cli, inherited);
    // Whatever was cut off has ended with the runtime, and is in the access log, too.
    if let Some(writing) = writing {
        writing.finish();
    }
    telemetry::log::finish();
    code
}

/// On all cores. What still writes the access log comes with the code.
fn serve(cli: Cli, inherited: Inherited) -> (ExitCode, Option<Writing>) {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return (ExitCode::FAILURE, None);
        }
    };
    let served = runtime.block_on(obey(cli, inherited));
    runtime.shutdown_timeout(limits::SHUTDOWN);
    served
}

async fn obey(cli: Cli, inherited: Inherited) -> (ExitCode, Option<Writing>) {
    match cli.command {
        Some(Command::Check { config }) => return (check::check(&config).await, None),
        Some(Command::Ready { config }) => return (ready::ready(&config), None),
        Some(Command::Completions(options)) => return (options.run(Cli::command()), None),
        Some(Command::Man(options)) => return (options.run(Cli::command()), None),
        None => {}
    }
    match run(&cli.config.unwrap_or_default(), inherited).await {
        Ok(writing) => (ExitCode::SUCCESS, writing),
        Err(error) => {
            tracing::error!(%error, "cannot start");
            (ExitCode::FAILURE, None)
        }
    }
}

/// Runs until the shim is told to end, and gives what then still writes the access log.
async fn run(config: &Path, inherited: Inherited) -> Result<Option<Writing>, StartError> {
    let mut end = Signals::register()?;
    // From now on: one that comes during the start counts after it.
    let hangup = signal(SignalKind::hangup())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), library = tls::library(), "starting");
    let mut watched = Watched::settings(config);
    let settings = Arc::new(Settings::read(config)?);
    watched.name(&settings);
    let (access_log, writing) = access_log::open(&settings.access_log)?.unzip();
    let metrics = Arc::new(Metrics::new());
    let status = settings.status_listen.map(status::Listener::bind).transpose()?;
    let observers = observers(access_log.as_ref(), status.is_some().then_some(&metrics));
    let (shim, following) = tokio::select! {
        begun = start::shim(&settings, observers.clone(), metrics) => begun?,
        // The Admin API may take its time.
        signal = end.next() => {
            tracing::info!(signal, "ended before it began");
            return Ok(writing);
        }
    };
    let notify = Notify::from_env().map(Arc::new);
    let pulse = Watchdog::default().watch(notify.clone());
    let status = status.map(|listener| health::serve(listener, pulse, &shim)).transpose()?;
    let shim = Arc::new(ArcSwap::from_pointee(shim));
    let listeners = listen::on(&settings.listen, inherited)?;

    let drain = CancellationToken::new();
    let connections = TaskTracker::new();
    for listener in &listeners {
        tracing::info!(addr = %listener.local_addr()?, "listening");
        tokio::spawn(listen::accept(
            Arc::clone(listener),
            Arc::clone(&shim),
            connections.clone(),
            drain.clone(),
        ));
    }
    let grace = settings.time_limits.drain;
    let begun_with = Arc::clone(&settings);
    let running =
        Running { config: config.to_owned(), begun_with, settings, watched, shim, following, access_log };
    let reloading = tokio::spawn(running.reload_on(hangup));

    takeover::tell_predecessor();
    if let Some(notify) = &notify {
        notify.ready();
    }

    let signal = loop {
        tokio::select! {
            signal = end.next() => break signal,
            _ = upgrade.recv() => {}
        }
        if let Some(signal) = takeover::hand_over(&listeners, end.next()).await {
            break signal;
        }
    };
    drop(listeners);
    if let Some(notify) = &notify {
        notify.stopping();
    }
    // The next process may be waiting for the address.
    drop(status);
    reloading.abort();
    tracing::info!(signal, connections = connections.len(), "draining");
    drain.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => tracing::info!("drained"),
        () = sleep(grace) => tracing::warn!(connections = connections.len(), "cut off what still ran"),
        signal = end.next() => tracing::warn!(signal, connections = connections.len(), "cut off what still ran"),
    }
    if let Some(observers) = observers {
        observers.cut_off();
    }
    Ok(writing)
}

/// Those who are told of each request. None: nothing is noted of it.
fn observers(access_log: Option<&AccessLog>, metrics: Option<&Arc<Metrics>>) -> Option<Arc<Observers>> {
    let access_log = access_log.map(|access_log| Box::new(access_log.clone()) as Box<dyn Observer>);
    let metrics = metrics.map(|metrics| Box::new(Arc::clone(metrics)) as Box<dyn Observer>);
    let all: Vec<_> = access_log.into_iter().chain(metrics).collect();
    (!all.is_empty()).then(|| Arc::new(Observers::new(all)))
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
