//! This knows what the shim needs before it can serve: all that the settings name, read and found to be good.

use std::io;
use std::sync::Arc;

use client_cert::{KeyFileError, ProofKey};
use kong_entities::{DeclarativeError, Entities, Watched};
use openssl::error::ErrorStack;

use crate::connection::Shim;
use crate::file::FileError;
use crate::listen::BindError;
use crate::settings::Settings;
use crate::sni::{self, ServerName, SniMap};
use crate::tls::{ServerCertificate, Tls};
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
    Declarative(#[from] DeclarativeError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Reads what the settings name, and follows Kong's configuration from then on.
///
/// # Errors
/// See [`StartError`].
pub(crate) fn shim(settings: &Settings) -> Result<Shim, StartError> {
    let certificate = ServerCertificate::read(&settings.default_certificate)?;
    let proof_key = Arc::new(ProofKey::read(&settings.proof_key_file)?);
    let kong = &settings.kong;
    let mut entities = kong_entities::watch(&kong.declarative_config, kong.poll_interval.0)?;
    let now = Arc::clone(&entities.borrow_and_update());
    let map = Arc::new(sni::policy(&now));
    let tls = Arc::new(tls(settings, certificate, Arc::clone(&map), &now)?);
    say(&map);
    tokio::spawn(follow(entities, Arc::clone(&tls)));
    Ok(Shim {
        tls,
        proof_key,
        kong: Arc::new(Kong::new(settings)?),
        fronts: settings.accept_proxy_protocol.clone(),
    })
}

/// As [`Tls::new`], with the file in the error.
pub(crate) fn tls(
    settings: &Settings,
    certificate: ServerCertificate,
    map: Arc<SniMap>,
    entities: &Entities,
) -> Result<Tls, StartError> {
    Tls::new(certificate, map, entities).map_err(|error| {
        let file = settings.default_certificate.cert.display().to_string();
        StartError::Tls { file, error }
    })
}

/// The map is replaced as a whole whenever the entities change.
async fn follow(mut entities: Watched, tls: Arc<Tls>) {
    while entities.changed().await.is_ok() {
        let now = Arc::clone(&entities.borrow_and_update());
        // Thousands of new certificates take a second, in which this thread would do no handshake.
        tokio::task::block_in_place(|| {
            let map = Arc::new(sni::policy(&now));
            tls.follow(Arc::clone(&map), &now);
            say(&map);
        });
    }
}

/// Tells the log of a map that counts from now on.
fn say(map: &SniMap) {
    for problem in map.problems() {
        tracing::warn!(problem, "CA names that a plugin wants sent are not: clients are asked without any");
    }
    let everybody = map.asks(&ServerName::None);
    tracing::info!(names = map.len(), everybody, "who is asked for a client certificate");
}
