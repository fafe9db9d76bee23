//! This knows CRLs (RFC 5280, sections 5 and 6.3): what they say of a certificate. Without I/O.

use std::time::SystemTime;

use crate::{Answer, DistributionPoint, Issuer, Link, Trouble};

/// A CRL whose signature was verified: whose serial numbers it has, and what it is about.
#[derive(Debug)]
pub struct Crl {}

impl Crl {
    /// Reads a CRL, in DER or PEM, that this CA signed.
    ///
    /// # Errors
    /// It is none, is not signed by this CA, or has a critical extension that is not known.
    pub fn read(_bytes: &[u8], _issuer: &Issuer) -> Result<Self, Trouble> {
        todo!()
    }

    /// When the next one comes at the latest.
    pub fn next_update(&self) -> Option<SystemTime> {
        todo!()
    }

    /// How many bytes of memory it takes.
    pub fn size(&self) -> usize {
        todo!()
    }
}

/// What one complete CRL says of a certificate, and a delta CRL that goes with it, where there is one.
///
/// # Errors
/// It says nothing about it, or its time is over by more than `grace`.
pub fn status(
    _link: &Link,
    _point: Option<&DistributionPoint>,
    _complete: &Crl,
    _delta: Option<&Crl>,
    _now: SystemTime,
    _grace: std::time::Duration,
) -> Result<Answer, Trouble> {
    todo!()
}
