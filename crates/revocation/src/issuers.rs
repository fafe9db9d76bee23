//! This knows the issuers of certificates that were read already: one of each, whoever refers to it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Issuer;

/// More issuing CAs than an operator has; a second copy of one more is nothing but memory.
const ISSUERS: u64 = 1_000;

/// Issuers by the SHA-256 of their certificates.
#[derive(Debug)]
pub struct Issuers(moka::sync::Cache<[u8; 32], Arc<Issuer>>);

impl Default for Issuers {
    fn default() -> Self {
        Self(moka::sync::Cache::new(ISSUERS))
    }
}

impl Issuers {
    /// How many are remembered.
    pub fn count(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }

    /// Reads a CA's certificate, or gives what was read of it before.
    ///
    /// # Errors
    /// Those of [`Issuer::from_der`].
    pub fn read(&self, der: &[u8]) -> Result<Arc<Issuer>, String> {
        let digest: [u8; 32] = Sha256::digest(der).into();
        if let Some(known) = self.0.get(&digest) {
            return Ok(known);
        }
        let issuer = Arc::new(Issuer::from_der(der)?);
        self.0.insert(digest, Arc::clone(&issuer));
        Ok(issuer)
    }
}
