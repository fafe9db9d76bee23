//! This knows what monitoring is told of the server: its metrics, and whether it can do its work.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use client_cert::ProofKey;
use telemetry::Pulse;
use telemetry::prometheus_client::registry::Registry;
use telemetry::status::{Check, Listener, Report, Status};

use crate::metrics::Collected;
use crate::revocation::Revocation;
use crate::rpc::Server;
use crate::schema::VERSION;

/// A running server and all that is told of it.
struct Health {
    server: Arc<Server>,
    registry: Registry,
    proof_key_file: PathBuf,
}

/// Begins to tell how the server fares, and asks the source of entities whether it is there.
///
/// # Errors
/// The system gives no more threads or descriptors.
pub(crate) fn serve(
    listener: Listener,
    pulse: Arc<Pulse>,
    server: &Arc<Server>,
    proof_key_file: PathBuf,
) -> io::Result<Status> {
    let mut registry = telemetry::registry("mtls_auth", VERSION);
    server.instances.metrics().register(&mut registry);
    if let Revocation::Checked(checker) = server.instances.revocation() {
        registry.register(
            "revocation_fetch_duration_seconds",
            "How long OCSP responders and servers of CRLs took to answer, or to fail",
            checker.fetch_times().clone(),
        );
    }
    registry.register_collector(Box::new(Collected(Arc::clone(server))));
    let asking = Arc::clone(server);
    tokio::spawn(async move { asking.instances.entities().wait_until_ready().await });
    listener.serve(pulse, Arc::new(Health { server: Arc::clone(server), registry, proof_key_file }))
}

impl Report for Health {
    fn registry(&self) -> &Registry {
        &self.registry
    }

    async fn readiness(&self) -> Vec<Check> {
        vec![
            Check { name: "entities", result: self.server.instances.entities().is_ready() },
            Check { name: "proof_key", result: self.proof_key() },
            Check { name: "socket", result: self.server.siblings.check().await },
        ]
    }
}

impl Health {
    /// The file must hold the key that this server has: the shim makes its proofs with it, and they would count for
    /// nothing.
    fn proof_key(&self) -> Result<(), String> {
        let key = ProofKey::read(&self.proof_key_file).map_err(|error| error.to_string())?;
        match self.server.instances.proof_key().is_same(&key) {
            true => Ok(()),
            false => Err(format!("{} holds another key than at the start", self.proof_key_file.display())),
        }
    }
}
