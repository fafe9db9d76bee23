//! This knows where a certificate in DER ends. Whether it is to be believed is for the verifier.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::FrontError;
use crate::MAX_CERTIFICATES;

/// Whether these bytes are one certificate and nothing else.
///
/// # Errors
/// [`FrontError::NotACertificate`].
pub(super) fn expect_one(der: &[u8]) -> Result<(), FrontError> {
    match X509Certificate::from_der(der) {
        Ok(([], _)) => Ok(()),
        _ => Err(FrontError::NotACertificate),
    }
}

/// Appends one or more certificates that stand one right after the other.
///
/// # Errors
/// [`FrontError::NotACertificate`]; [`FrontError::TooMany`] where `certificates` with them, and a leaf, would be more than
/// [`MAX_CERTIFICATES`].
pub(super) fn append_all(mut ders: &[u8], certificates: &mut Vec<Vec<u8>>) -> Result<(), FrontError> {
    loop {
        if certificates.len() + 1 >= MAX_CERTIFICATES {
            return Err(FrontError::TooMany);
        }
        let (rest, _) = X509Certificate::from_der(ders).map_err(|_| FrontError::NotACertificate)?;
        certificates.push(ders[..ders.len() - rest.len()].to_vec());
        if rest.is_empty() {
            return Ok(());
        }
        ders = rest;
    }
}
