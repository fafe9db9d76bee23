//! Whether a certificate of a verified chain has been revoked: by OCSP (RFC 6960), and by CRLs (RFC 5280, section 6.3).
//!
//! What answers say is decided in pure functions of bytes, issuers and the time ([`ocsp`], [`crl`]). What asks for them
//! ([`fetch`]) knows nothing of what they mean.

#![forbid(unsafe_code)]

mod checker;
pub mod crl;
mod der;
pub mod fetch;
mod finding;
mod issuers;
mod link;
pub mod ocsp;
mod point;
mod signature;
mod trouble;

pub use checker::{Checker, Counts, Options, Terms, crl_files};
pub use finding::{Finding, Said, Source, Standing};
pub use issuers::Issuers;
pub use link::{Issuer, Link};
pub use point::{DistributionPoint, PointName};
pub use trouble::Trouble;

use std::time::{Duration, SystemTime};

/// How far apart the clocks of whoever signs answers and ours may be.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What an authority says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is not revoked.
    Good,
    /// It is revoked, since when as far as the authority says so.
    Revoked {
        /// The revocation time.
        since: Option<SystemTime>,
    },
    /// The authority does not know it.
    Unknown,
}

impl Status {
    /// All names that there are.
    pub const CODES: [&str; 3] = ["good", "revoked", "unknown"];

    /// The name in logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked { .. } => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// A status that is signed by whoever may say so, and for how long it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is said.
    pub status: Status,
    /// From when on.
    pub this_update: SystemTime,
    /// When there will be something newer at the latest; none where the authority does not say so.
    pub next_update: Option<SystemTime>,
}
