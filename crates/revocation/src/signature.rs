//! This knows how to verify the signature of a CRL or an OCSP response.

use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::sign::Verifier;
use x509_parser::der_parser::oid;
use x509_parser::der_parser::oid::Oid;
use x509_parser::x509::AlgorithmIdentifier;

use crate::Trouble;

/// Verifies a signature over these bytes. SHA-1 and MD5 are refused: a collision would be a second answer under the same
/// signature, and this one might say "good".
///
/// # Errors
/// It is not this key's, or of an algorithm that is not taken.
pub(crate) fn verify(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &PKey<Public>,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Trouble> {
    let Scheme { digest, key_type } =
        Scheme::of(algorithm.oid()).ok_or(Trouble::WrongSigner("its algorithm is not taken"))?;
    if key.id() != key_type {
        return Err(Trouble::BadSignature);
    }
    let holds = match digest {
        Some(digest) => {
            Verifier::new(digest, key).and_then(|mut verifier| verifier.verify_oneshot(signature, signed))
        }
        None => Verifier::new_without_digest(key)
            .and_then(|mut verifier| verifier.verify_oneshot(signature, signed)),
    };
    match holds {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Trouble::BadSignature),
    }
}

struct Scheme {
    digest: Option<MessageDigest>,
    key_type: Id,
}

impl Scheme {
    fn of(algorithm: &Oid<'_>) -> Option<Self> {
        let (digest, key_type) = if *algorithm == oid!(1.2.840.113549.1.1.11) {
            (Some(MessageDigest::sha256()), Id::RSA)
        } else if *algorithm == oid!(1.2.840.113549.1.1.12) {
            (Some(MessageDigest::sha384()), Id::RSA)
        } else if *algorithm == oid!(1.2.840.113549.1.1.13) {
            (Some(MessageDigest::sha512()), Id::RSA)
        } else if *algorithm == oid!(1.2.840.10045.4.3.2) {
            (Some(MessageDigest::sha256()), Id::EC)
        } else if *algorithm == oid!(1.2.840.10045.4.3.3) {
            (Some(MessageDigest::sha384()), Id::EC)
        } else if *algorithm == oid!(1.2.840.10045.4.3.4) {
            (Some(MessageDigest::sha512()), Id::EC)
        } else if *algorithm == oid!(1.3.101.112) {
            (None, Id::ED25519)
        } else if *algorithm == oid!(1.3.101.113) {
            (None, Id::ED448)
        } else {
            return None;
        };
        Some(Self { digest, key_type })
    }
}
