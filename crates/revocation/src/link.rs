//! This knows a certificate of a verified chain and its issuer, as far as revocation is concerned.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Public};
use sha2::{Digest, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_PKIX_ACCESS_DESCRIPTOR_OCSP, OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_FRESHEST_CRL,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::DistributionPoint;

/// Whoever issued a certificate: the CA that is above it in a verified chain.
#[derive(Debug)]
pub struct Issuer {
    /// Its certificate, in DER.
    pub der: Vec<u8>,
    /// The SHA-256 of its certificate.
    pub digest: [u8; 32],
    /// Its subject, in DER.
    pub name: Vec<u8>,
    /// The bits of its public key, without the algorithm: what a CertID is made from (RFC 6960, section 4.1.1).
    pub key_bits: Vec<u8>,
    /// Its public key.
    pub key: PKey<Public>,
    /// Whether its key usage lets it sign CRLs (RFC 5280, section 6.3.3 (f)); so it is where there is no key usage.
    pub signs_crls: bool,
}

/// A certificate of a verified chain below its anchor, with its issuer, and where to ask about it.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its serial number: the content octets of the INTEGER without those zeros that only say the sign.
    pub serial: Vec<u8>,
    /// Whether it is a CA's.
    pub is_ca: bool,
    /// Who issued it.
    pub issuer: Arc<Issuer>,
    /// The OCSP responders that it names (RFC 5280, section 4.2.2.1), in its order.
    pub ocsp_urls: Vec<String>,
    /// Where it says that its CRLs are (RFC 5280, section 4.2.1.13).
    pub distribution_points: Vec<DistributionPoint>,
    /// Where it says that their delta CRLs are (RFC 5280, section 4.2.1.15).
    pub freshest_points: Vec<DistributionPoint>,
}

impl Issuer {
    /// Reads a CA's certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let key_usage = certificate.key_usage().map_err(|error| error.to_string())?;
        let spki = certificate.public_key();
        let key = PKey::public_key_from_der(spki.raw).map_err(|error: ErrorStack| error.to_string())?;
        Ok(Self {
            der: der.to_vec(),
            digest: Sha256::digest(der).into(),
            name: certificate.subject().as_raw().to_vec(),
            key_bits: spki.subject_public_key.data.to_vec(),
            key,
            signs_crls: key_usage.is_none_or(|usage| usage.value.crl_sign()),
        })
    }
}

impl Link {
    /// Reads a certificate that this CA issued.
    ///
    /// # Errors
    /// What is wrong with it: also a serial number that is negative (RFC 5280, section 4.1.2.2), and an extension that stands twice or cannot be read, for it may hide where to ask.
    pub fn from_der(der: &[u8], issuer: Arc<Issuer>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if certificate.raw_serial().first().is_none_or(|first| first & 0x80 != 0) {
            return Err("its serial number is negative, and would be taken for another one".to_owned());
        }
        let mut link = Self {
            serial: magnitude(certificate.raw_serial()).to_vec(),
            is_ca: certificate.is_ca(),
            issuer,
            ocsp_urls: Vec::new(),
            distribution_points: Vec::new(),
            freshest_points: Vec::new(),
        };
        let extensions = certificate.extensions_map().map_err(|error| error.to_string())?;
        for extension in extensions.values() {
            let points = || {
                DistributionPoint::read_all(extension.value, &link.issuer.name)
                    .map_err(|error| error.to_string())
            };
            if extension.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS {
                link.distribution_points = points()?;
            } else if extension.oid == OID_X509_EXT_FRESHEST_CRL {
                link.freshest_points = points()?;
            }
            match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => {
                    let ocsp = access
                        .accessdescs
                        .iter()
                        .filter(|access| access.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP);
                    link.ocsp_urls.extend(ocsp.filter_map(|access| uri(&access.access_location)));
                }
                ParsedExtension::ParseError { error } => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(link)
    }
}

fn uri(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    }
}

/// A serial number without the zeros before it, of which DER has one where the first bit is set.
pub(crate) fn magnitude(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}
