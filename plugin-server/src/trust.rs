//! This knows which CAs an instance trusts.

use std::sync::Arc;
use std::time::SystemTime;

use kong_entities::{CaCertificate, is_pem};
use openssl::x509::X509;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::Certificate;
use crate::config::{Config, same_ca};
use crate::names;
use crate::verify::system_time;

/// The CAs of an instance, and how they may be used.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) anchors: Vec<X509>,
    /// Whether an intermediate among them is enough of an anchor.
    pub(crate) partial_chain: bool,
    /// Whether what is only for TLS servers is enough of a client certificate.
    pub(crate) server_auth_usage: bool,
    /// Stands for all of the above: two instances with the same digest verify alike.
    pub(crate) digest: [u8; 32],
    /// Each entry of the configuration, with the SHA-256 of the certificates that it stands for.
    entries: Vec<(String, Vec<[u8; 32]>)>,
}

impl Trust {
    /// Reads the CAs of a configuration; `entities` are those that its ids stand for, in its order.
    ///
    /// # Errors
    /// Names the field and what is wrong: no PEM, not a CA.
    pub(crate) fn resolve(config: &Config, entities: &[Arc<CaCertificate>]) -> Result<Self, String> {
        let mut digest = Sha256::new();
        let (partial_chain, server_auth_usage) = (config.allow_partial_chain, config.allow_server_auth_usage);
        digest.update([u8::from(partial_chain), u8::from(server_auth_usage)]);
        let mut anchors = Vec::new();
        let mut entries = Vec::new();
        let mut entities = entities.iter();
        for (position, entry) in config.ca_certificates.iter().enumerate() {
            let field = |problem: String| format!("config.ca_certificates[{position}]: {problem}");
            let pem = match is_pem(entry) {
                true => entry,
                false => &entities.next().ok_or_else(|| field("it was not looked for".into()))?.cert,
            };
            let mut digests = Vec::new();
            for der in certificates(pem).map_err(field)? {
                check_ca(&der).map_err(field)?;
                let of_certificate: [u8; 32] = Sha256::digest(&der).into();
                digest.update(of_certificate);
                digests.push(of_certificate);
                anchors.push(X509::from_der(&der).map_err(|error| field(error.to_string()))?);
            }
            entries.push((entry.clone(), digests));
        }
        let digest = digest.finalize().into();
        Ok(Self { anchors, partial_chain, server_auth_usage, digest, entries })
    }

    /// Each CA with its SHA-256.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = (&[u8; 32], &X509)> {
        self.entries.iter().flat_map(|(_, digests)| digests).zip(&self.anchors)
    }

    /// The names of the anchors, for people to read.
    pub(crate) fn subjects(&self) -> String {
        let subject = |anchor: &X509| {
            let der = anchor.to_der().unwrap_or_default();
            Certificate::from_der(&der).map(|anchor| format!("\"{}\"", anchor.subject)).unwrap_or_default()
        };
        self.anchors.iter().map(subject).collect::<Vec<_>>().join(", ")
    }

    /// The SHA-256 of the certificates that an entry of `ca_certificates` stands for; none for what is not among them.
    pub(crate) fn certificates_of(&self, entry: &str) -> &[[u8; 32]] {
        let same = self.entries.iter().find(|(other, _)| same_ca(other, entry));
        same.map_or(&[], |(_, digests)| digests)
    }
}

/// What a CA is called (RFC 4514), and when it ends.
pub(crate) fn subject_and_end(authority: &X509) -> Option<(String, SystemTime)> {
    let der = authority.to_der().ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    Some((names::distinguished_name(parsed.subject()), system_time(authority.not_after()).ok()?))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| match error {
            // Its own text shows the marker as a list of numbers.
            pem::Error::MissingSectionEnd { .. } => "not PEM: an END line is missing".into(),
            error => format!("not PEM: {error}"),
        })?;
    if certificates.is_empty() {
        return Err("no certificate in the PEM text".into());
    }
    Ok(certificates)
}

/// Kong refuses such entities too. Here it also keeps a leaf, pasted in by mistake, from anchoring a chain.
fn check_ca(der: &[u8]) -> Result<(), String> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
    if !rest.is_empty() {
        return Err("not a certificate: it goes on after its end".into());
    }
    if !certificate.is_ca() {
        return Err(format!(
            "not a CA (no basicConstraints with CA:TRUE): {}",
            names::distinguished_name(certificate.subject())
        ));
    }
    Ok(())
}
