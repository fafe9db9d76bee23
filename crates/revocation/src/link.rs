//! This knows a certificate of a verified chain and its issuer, as far as revocation is concerned.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Public};
use sha2::{Digest, Sha256};
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension, ReasonFlags};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{FromDer, X509Certificate};

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
}

/// A place where a CRL is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistributionPoint {
    /// Its names, URLs among them. Empty where it is relative to the issuer's name.
    pub names: Vec<PointName>,
    /// For which reasons of revocation it is complete, as bits of ReasonFlags; none: for all.
    pub reasons: Option<u16>,
    /// Whether its CRL is another issuer's (`cRLIssuer`): an indirect CRL.
    pub is_indirect: bool,
}

/// A name of a distribution point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointName {
    /// A URL.
    Uri(String),
    /// An entry of a directory, in DER.
    Directory(Vec<u8>),
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
    /// What is wrong with it: also an extension that stands twice or cannot be read, for it may hide where to ask.
    pub fn from_der(der: &[u8], issuer: Arc<Issuer>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let mut link = Self {
            serial: magnitude(certificate.raw_serial()).to_vec(),
            is_ca: certificate.is_ca(),
            issuer,
            ocsp_urls: Vec::new(),
            distribution_points: Vec::new(),
        };
        let extensions = certificate.extensions_map().map_err(|error| error.to_string())?;
        for extension in extensions.values() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => {
                    let ocsp = access
                        .accessdescs
                        .iter()
                        .filter(|access| access.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP);
                    link.ocsp_urls.extend(ocsp.filter_map(|access| uri(&access.access_location)));
                }
                ParsedExtension::CRLDistributionPoints(points) => {
                    link.distribution_points = points.points.iter().map(DistributionPoint::read).collect();
                }
                ParsedExtension::ParseError { error } => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(link)
    }
}

impl DistributionPoint {
    /// The URLs among its names, in its order.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            PointName::Uri(uri) => Some(uri.as_str()),
            PointName::Directory(_) => None,
        })
    }

    fn read(point: &x509_parser::extensions::CRLDistributionPoint<'_>) -> Self {
        let names = match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => {
                names.iter().filter_map(PointName::read).collect()
            }
            Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => Vec::new(),
        };
        let reasons = point.reasons.as_ref().map(|ReasonFlags { flags }| *flags);
        Self { names, reasons, is_indirect: point.crl_issuer.is_some() }
    }
}

impl PointName {
    /// Of the kinds of names those two that distribution points have.
    fn read(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DirectoryName(name) => Some(Self::Directory(name.as_raw().to_vec())),
            name => uri(name).map(Self::Uri),
        }
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
