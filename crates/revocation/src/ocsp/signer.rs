//! This knows who may sign an OCSP response about a CA's certificates (RFC 6960, section 4.2.2.2): the CA itself, or whoever
//! it lets do so by a certificate.
//!
//! A delegate's certificate is itself not asked about. RFC 6960, section 4.2.2.2.1 leaves that to each CA and client; with or
//! without `id-pkix-ocsp-nocheck`, it counts until it ends.

use std::time::{SystemTime, UNIX_EPOCH};

use openssl::pkey::{PKey, Public};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;
use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::response::{Response, Signed};
use crate::der::{self, SEQUENCE, malformed};
use crate::{Issuer, Trouble, signature};

/// What may be critical in a delegate's certificate: key usage, extended key usage, basic constraints, certificate
/// policies and alternative names of the subject, `id-pkix-ocsp-nocheck`.
const KNOWN: [Oid<'static>; 6] = [
    oid!(2.5.29.15),
    oid!(2.5.29.37),
    oid!(2.5.29.19),
    oid!(2.5.29.32),
    oid!(2.5.29.17),
    oid!(1.3.6.1.5.5.7.48.1.5),
];

/// Verifies that a response is signed by whoever it says, and that they may say so.
///
/// # Errors
/// Why not. Where several could have signed, what is said of the last one.
pub(super) fn verify(response: &Response<'_>, issuer: &Issuer, now: SystemTime) -> Result<(), Trouble> {
    let mut outcome = Err(Trouble::WrongSigner("nobody is known by its ResponderID"));
    if response.responder.is(&issuer.name, &issuer.key_bits) {
        outcome = is_signed_by(&response.signed, &issuer.key);
    }
    // The issuer's own certificate may be among them, and is no delegate's.
    for der in response.certificates.iter().filter(|der| **der != issuer.der) {
        if outcome.is_ok() {
            break;
        }
        let certificate = read(der)?;
        let spki = certificate.public_key();
        if response.responder.is(certificate.subject().as_raw(), &spki.subject_public_key.data) {
            // No key is used before the issuer vouches for it.
            outcome = is_delegate(der, &certificate, issuer, now).and_then(|()| {
                let key = PKey::public_key_from_der(spki.raw)
                    .map_err(|_| Trouble::WrongSigner("its key cannot be used"))?;
                is_signed_by(&response.signed, &key)
            });
        }
    }
    outcome
}

fn is_signed_by(signed: &Signed<'_>, key: &PKey<Public>) -> Result<(), Trouble> {
    signature::verify(&signed.algorithm, key, signed.bytes, signed.signature)
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, Trouble> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(malformed("a certificate")),
    }
}

/// Whether this certificate lets its owner sign responses for this issuer, and is signed by its very key.
fn is_delegate(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    issuer: &Issuer,
    now: SystemTime,
) -> Result<(), Trouble> {
    if certificate.issuer().as_raw() != issuer.name {
        return Err(Trouble::WrongSigner("its certificate is another CA's"));
    }
    let extensions = certificate.extensions_map();
    let known = extensions.is_ok_and(|extensions| {
        extensions.values().all(|extension| !extension.critical || KNOWN.contains(&extension.oid))
    });
    if !known {
        return Err(Trouble::WrongSigner(
            "its certificate has a critical extension that is not known, or one twice",
        ));
    }
    // Not any other usage, nor "any": it must be said explicitly (RFC 6960, section 4.2.2.2).
    if !matches!(certificate.extended_key_usage(), Ok(Some(usage)) if usage.value.ocsp_signing) {
        return Err(Trouble::WrongSigner("its certificate is not for OCSPSigning"));
    }
    let may_sign = match certificate.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.digital_signature() || usage.value.non_repudiation(),
        Err(_) => false,
    };
    if !may_sign {
        return Err(Trouble::WrongSigner("its certificate is not for signatures"));
    }
    if !is_valid_at(certificate, now) {
        return Err(Trouble::WrongSigner("its certificate is not valid now"));
    }
    let signed =
        der::read_all(der, |outer| der::read_all(outer.content(SEQUENCE, "a certificate")?, Signed::read))?;
    // RFC 5280, section 4.1.1.2: the same algorithm, inside and outside.
    if certificate.tbs_certificate.signature != signed.algorithm {
        return Err(malformed("a certificate"));
    }
    match is_signed_by(&signed, &issuer.key) {
        Err(Trouble::BadSignature) => {
            Err(Trouble::WrongSigner("its certificate is not signed by this CA's key"))
        }
        outcome => outcome,
    }
}

fn is_valid_at(certificate: &X509Certificate<'_>, now: SystemTime) -> bool {
    let seconds = now.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .is_some_and(|now| certificate.validity().is_valid_at(now))
}
