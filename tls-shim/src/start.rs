//! This knows what the shim needs before it can serve: all that the settings name, read and found to be good.

use std::io;
use std::sync::Arc;

use client_cert::{KeyFileError, ProofKey};
use kong_entities::{Entities, Followed};
use openssl::error::ErrorStack;
use tokio::task::JoinHandle;

use crate::connection::Shim;
use crate::file::FileError;
use crate::listen::BindError;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::plugin_server::PluginServer;
use crate::record::Observers;
use crate::settings::{self, Settings};
use crate::sni::{self, ServerName, SniMap};
use crate::source::{self, SourceUnusable};
use crate::tls::{SecretsError, ServerCertificate, SessionTickets, Tls};
use crate::upstream::Kong;

/// Why the shim does not start. Each names the file or address, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    File(#[from] FileError),
    /// OpenSSL does not want the certificate.
    #[error("{file}: {error}")]
    Tls { file: String, error: ErrorStack },
    #[error(transparent)]
    ProofKey(#[from] KeyFileError),
    #[error(transparent)]
    TicketSecrets(#[from] SecretsError),
    #[error(transparent)]
    Source(#[from] SourceUnusable),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Status(#[from] telemetry::status::BindError),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Reads what the settings name, and follows Kong's configuration from then on: the task that does so comes with it.
///
/// # Errors
/// See [`StartError`].
pub(crate) async fn shim(
    settings: &Settings,
    observers: Option<Arc<Observers>>,
    metrics: Arc<Metrics>,
) -> Result<(Shim, JoinHandle<()>), StartError> {
    let certificate = ServerCertificate::read(&settings.default_certificate)?;
    let proof_key = Arc::new(ProofKey::read(&settings.proof_key_file)?);
    let kong = Arc::new(Kong::new(settings)?);
    let mut followed = source::follow(settings).await?;
    let entities = Arc::clone(&followed.entities.borrow_and_update());
    let map = Arc::new(sni::policy(&entities));
    let tls = Arc::new(tls(settings, certificate, Arc::clone(&map), &entities)?);
    say(&entities, &map, &followed);
    let following = tokio::spawn(follow(followed, Arc::clone(&tls)));
    let plugin_server = match settings.plugin_server.clone() {
        // It is watched for as long as the process runs: another socket needs a restart.
        Some(socket) => Some(PluginServer::watch(socket).await),
        None => None,
    };
    let shim = Shim {
        tls,
        proof_key,
        kong,
        plugin_server,
        fronts: settings.accept_proxy_protocol.clone(),
        times: settings.time_limits,
        limits: settings.limits,
        places: Arc::new(Places::new(settings.limits.connections)),
        observers,
        metrics,
    };
    Ok((shim, following))
}

/// As [`Tls::new`], with the session tickets that the settings want.
pub(crate) fn tls(
    settings: &Settings,
    certificate: ServerCertificate,
    map: Arc<SniMap>,
    entities: &Entities,
) -> Result<Tls, StartError> {
    let tickets = tickets(&settings.session_tickets)?;
    refusal(settings, Tls::new(&settings.tls, certificate, tickets, map, entities))
}

/// What the settings say of session tickets.
pub(crate) fn tickets(settings: &settings::SessionTickets) -> Result<Option<SessionTickets>, SecretsError> {
    match settings {
        settings::SessionTickets::Off => Ok(None),
        settings::SessionTickets::On(settings) => SessionTickets::new(settings).map(Some),
    }
}

/// What OpenSSL says of the default certificate, with the file in the error.
pub(crate) fn refusal<T>(settings: &Settings, result: Result<T, ErrorStack>) -> Result<T, StartError> {
    result.map_err(|error| {
        let file = settings.default_certificate.cert.display().to_string();
        StartError::Tls { file, error }
    })
}

/// Whatever the source gives counts from then on.
pub(crate) async fn follow(mut followed: Followed, tls: Arc<Tls>) {
    while followed.entities.changed().await.is_ok() {
        apply(&mut followed, &tls);
    }
}

/// What the source has given last counts from now on. The map is replaced as a whole.
pub(crate) fn apply(followed: &mut Followed, tls: &Tls) {
    let entities = Arc::clone(&followed.entities.borrow_and_update());
    // Thousands of new certificates take a second, in which this thread would do no handshake.
    tokio::task::block_in_place(|| {
        let map = Arc::new(sni::policy(&entities));
        tls.follow(Arc::clone(&map), &entities);
        say(&entities, &map, followed);
    });
}

/// Tells the log of a map that counts from now on.
fn say(entities: &Entities, map: &SniMap, followed: &Followed) {
    if !entities.is_known() {
        let reason = followed.status.borrow().last_error.clone();
        let reason = reason.unwrap_or_else(|| "the Admin API has not answered yet".into());
        tracing::warn!(
            reason,
            "nothing is known of Kong's configuration: until it is, everybody is asked for a client certificate"
        );
        return;
    }
    for problem in map.problems() {
        tracing::warn!(problem, "CA names that a plugin wants sent are not: clients are asked without any");
    }
    let everybody = map.asks(&ServerName::None);
    tracing::info!(names = map.len(), everybody, "who is asked for a client certificate");
}
