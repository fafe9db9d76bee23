//! `mtls-auth`: mutual-TLS authentication for open-source Kong, as an external plugin server.
//!
//! Kong starts it, asks it for its schema, and then calls it for every request that the plugin applies to. The way of
//! a request is in [`access`].

#![forbid(unsafe_code)]

mod access;
mod certificate;
mod certificate_phase;
mod cli;
mod config;
mod conversation;
mod details;
mod entity_source;
mod event;
mod handoff;
mod ids;
mod instance;
mod mapping;
mod names;
mod pdk;
mod reason;
mod rpc;
mod schema;
mod serve;
mod siblings;
mod source;
mod trust;
mod verify;
mod wire;

#[cfg(any(test, feature = "fuzzing"))]
pub use wire::fuzzing;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use client_cert::ProofKey;
use kong_entities::{AdminClient, Directory};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Cli, Command, EntitySettings, LogLevel, Settings};
use crate::entity_source::{EntitySource, KongConsumers};
use crate::instance::Shared;
use crate::rpc::Server;
use crate::siblings::Siblings;
use crate::wire::protocol::Protocol;

/// Runs the program by its command line and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::with_double_hyphens(std::env::args_os()));
    if cli.dump {
        return dump(cli.protocol);
    }
    let options = match cli.command {
        Some(Command::Serve(options)) => options,
        None => cli.options,
    };
    let settings = match options.settle() {
        Ok(settings) => settings,
        Err(error) => return refuse_to_start(&error),
    };
    start_logging(settings.log_level);
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse_to_start(&*error),
    }
}

/// Kong reads this from the query command's standard output.
#[allow(clippy::print_stdout, reason = "standard output is what the query command is for")]
fn dump(protocol: Protocol) -> ExitCode {
    println!("{}", schema::plugin_info(protocol));
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "logging may not have begun")]
fn refuse_to_start(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("mtls-auth: {error}");
    ExitCode::FAILURE
}

/// Human on a terminal, JSON otherwise. What Kong's operator must see goes through Kong's own log instead: Kong shows
/// this output only at its level `info`.
fn start_logging(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // A line that cannot be written, on a full disk or to a worker of Kong that has gone, is lost and no more: to complain
    // of it on the same standard error would be to panic.
    let logging = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        logging.init();
    } else {
        logging.json().init();
    }
}

#[tokio::main]
async fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let proof_key = ProofKey::read_or_create(&settings.proof_key_file)?;
    let entities = entity_source(settings.entities)?;
    let shared = Shared::new(entities, proof_key, settings.event_timeout);
    let (listener, siblings) = Siblings::bind(&settings.socket, settings.event_timeout)?;
    let server = Arc::new(Server::new(shared, siblings));
    tracing::info!(socket = %settings.socket.display(), pid = std::process::id(), "serving");
    let leave = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve::serve(listener, server, leave).await;
    tracing::info!("left");
    Ok(())
}

/// The one source that the options name.
fn entity_source(settings: EntitySettings) -> Result<EntitySource, Box<dyn std::error::Error>> {
    Ok(match settings {
        EntitySettings::Kong => EntitySource::Kong(KongConsumers::new()),
        EntitySettings::Declarative(path) => EntitySource::Directory(Directory::declarative(
            kong_entities::watch(&path, kong_entities::POLL_INTERVAL)?,
        )),
        // It is not asked yet: it may be that of the Kong that is starting us.
        EntitySettings::Admin(settings) => {
            EntitySource::Directory(Directory::admin(AdminClient::new(settings)?))
        }
    })
}
