//! This knows whom to ask about a certificate, in which order, and for how long to wait for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Finding, Link, fetch};

/// What holds for all instances.
#[derive(Clone, Debug)]
pub struct Options {
    /// How what URLs lead to is fetched.
    pub fetch: fetch::Options,
    /// A file of CRLs, in PEM or DER, or a folder of such files.
    pub crl_path: Option<PathBuf>,
    /// For how long after its nextUpdate a CRL still counts while no newer one can be had.
    pub max_stale: Duration,
    /// How many bytes CRLs and answers may take together.
    pub memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fetch: fetch::Options::default(),
            crl_path: None,
            max_stale: Duration::from_secs(3600),
            memory: 256 << 20,
        }
    }
}

/// How one plugin instance asks (`mtls-auth.md`).
#[derive(Clone, Debug)]
pub struct Terms {
    /// How it fetches.
    pub settings: Arc<fetch::Settings>,
    /// `cert_cache_ttl`: for how long at most an answer counts that says that a certificate has not been revoked.
    pub ttl: Duration,
}

/// Asks whether certificates have been revoked.
#[derive(Debug)]
pub struct Checker {}

impl Checker {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// A file that the options name cannot be used.
    pub fn new(_options: Options) -> Result<Self, String> {
        todo!()
    }

    /// What can be found out about these certificates until the deadline; one finding for each, in their order.
    pub async fn check(&self, _links: &[&Arc<Link>], _terms: &Terms, _deadline: Instant) -> Vec<Finding> {
        todo!()
    }
}
