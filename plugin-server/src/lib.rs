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
mod doctor;
mod entity_source;
mod event;
mod explain;
mod guard;
mod handoff;
mod health;
mod ids;
mod instance;
mod mapping;
mod metrics;
mod names;
mod pdk;
#[cfg(test)]
mod random_cases;
mod reason;
mod revocation;
mod rpc;
mod schema;
mod serve;
mod siblings;
mod socket;
mod source;
mod step;
mod trust;
mod verify;
mod wire;
mod woken_by;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing {
    //! What must hold of any bytes that others wrote, for `fuzz/`. Each function panics where it does not.

    pub use crate::certificate::fuzzing::certificate_names;
    pub use crate::wire::fuzzing::{msgpack_frames, protobuf_frames};
}

use std::process::ExitCode;
use std::sync::Arc;

use ::revocation::{Checker, Options};
use clap::{CommandFactory, Parser};
use client_cert::ProofKey;
use kong_entities::{AdminClient, Directory};
use telemetry::status::Listener;
use telemetry::{Notify, Watchdog};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, Command, EntitySettings, Settings};
use crate::entity_source::{EntitySource, KongConsumers};
use crate::instance::Shared;
use crate::revocation::{Revocation, watched};
use crate::rpc::Server;
use crate::siblings::Siblings;
use crate::socket::Socket;
use crate::wire::protocol::Protocol;

/// Runs the program by its command line and says how it ended.
pub fn main() -> ExitCode {
    let hardened = hardening::harden();
    let cli = Cli::parse_from(cli::with_double_hyphens(std::env::args_os()));
    if cli.dump {
        return dump(cli.protocol);
    }
    let options = match cli.command {
        Some(Command::Serve(options)) => options,
        Some(Command::Guard(options)) => return guard::run(options),
        Some(Command::Explain(options)) => return explain::run(options),
        Some(Command::Doctor(options)) => return doctor::run(options),
        Some(Command::Completions(options)) => return options.run(Cli::command()),
        Some(Command::Man(options)) => return options.run(Cli::command()),
        None => cli.options,
    };
    let settings = match options.settle() {
        Ok(settings) => settings,
        Err(error) => return refuse_to_start(&error),
    };
    // What Kong's operator must see goes through Kong's own log instead: Kong shows this one only at its level `info`.
    telemetry::log::start(settings.log_level.into(), "mtls_auth");
    if let Err(error) = hardened {
        tracing::warn!(%error, "keys may get into a core dump");
    }
    let ran = run(settings);
    telemetry::log::finish();
    match ran {
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

fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    // On one core, the runtime for one thread does the same for less: it never looks for work to take from others.
    let is_alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut runtime = if is_alone { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = runtime.enable_all().build()?;
    let served = runtime.block_on(serve_kong(settings));
    // A disk or a resolver that hangs keeps nobody from leaving.
    runtime.shutdown_background();
    served
}

async fn serve_kong(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let proof_key = ProofKey::read_or_create(&settings.proof_key_file)?;
    let entities = entity_source(settings.entities)?;
    let checker = checker(settings.revocation)?;
    let shared = Shared::new(entities, proof_key, Revocation::Checked(checker), settings.event_timeout)
        .with_verified_certificates(settings.verified_certificates);
    // Before the socket, which it takes from the server of before.
    let status = settings.status_listen.map(Listener::bind).transpose()?;
    let (listener, socket) = Socket::bind(&settings.socket)?;
    let siblings = Siblings::of(&socket, settings.event_timeout);
    let server = Arc::new(Server::new(shared, siblings));
    let notify = Notify::from_env().map(Arc::new);
    let pulse = Watchdog::default().watch(notify.clone());
    let status = match status {
        Some(status) => Some(health::serve(status, pulse, &server, settings.proof_key_file)?),
        None => None,
    };
    tracing::info!(socket = %settings.socket.display(), pid = std::process::id(), "serving");
    let leave = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if let Some(notify) = &notify {
            notify.stopping();
        }
        // The next server may be waiting for the address.
        drop(status);
    };
    if let Some(notify) = &notify {
        notify.ready();
    }
    serve::serve(listener, socket, server, leave).await;
    tracing::info!("left");
    Ok(())
}

/// Who is asked about the revocation of certificates, with the CRLs in files as they change.
fn checker(options: Options) -> Result<Checker, String> {
    let path = options.crl_path.clone();
    // Before they are read: a change in between is then noticed.
    let seen = path.as_deref().and_then(watched::look);
    let checker = Checker::new(options)?;
    if let Some(path) = path {
        tokio::spawn(watched::follow(checker.clone(), path, seen));
    }
    Ok(checker)
}

/// The one source that the options name.
fn entity_source(settings: EntitySettings) -> Result<EntitySource, Box<dyn std::error::Error>> {
    Ok(match settings {
        EntitySettings::Kong => EntitySource::Kong(KongConsumers::new()),
        EntitySettings::Declarative(path) => EntitySource::Directory(Directory::declarative(
            kong_entities::follow_file(&path, kong_entities::POLL_INTERVAL)?,
        )),
        // It is not asked yet: it may be that of the Kong that is starting us.
        EntitySettings::Admin(settings) => {
            EntitySource::Directory(Directory::admin(AdminClient::new(settings)?))
        }
    })
}
