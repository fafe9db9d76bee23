//! This knows how to verify the signature of a CRL, an OCSP response, or the certificate of whoever signs one.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Verifier};
use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::der_parser::oid;
use x509_parser::x509::AlgorithmIdentifier;

use crate::Trouble;
use crate::der::{self, INTEGER, NULL, OBJECT_IDENTIFIER, Reader, SEQUENCE, context, malformed};

/// NID_ED448 of OpenSSL, by which it tells the keys; a library without Ed448 has no name for it, and no such keys.
const ED448: Id = Id::from_raw(1088);

/// The fewest bits of an RSA key, and of the order of a curve: 80 bits of strength (NIST SP 800-57 part 1, table 2), as is
/// asked of the chain itself.
const MIN_RSA_BITS: u32 = 1024;
const MIN_CURVE_BITS: u32 = 160;

/// Verifies a signature over these bytes. SHA-1 and MD5 are refused: a collision would be a second answer under the same
/// signature, and this one might say "good". So are keys of less than 80 bits.
///
/// # Errors
/// It is not this key's, or of an algorithm that is not taken.
pub(crate) fn verify(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &PKey<Public>,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Trouble> {
    let scheme = Scheme::of(algorithm).ok_or(Trouble::WrongSigner("its algorithm is not taken"))?;
    if !scheme.fits(key.id()) {
        return Err(Trouble::BadSignature);
    }
    if !is_strong(key) {
        return Err(Trouble::WrongSigner("its key is too short"));
    }
    match scheme.verify(key, signed, signature) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Trouble::BadSignature),
    }
}

fn is_strong(key: &PKey<Public>) -> bool {
    match key.id() {
        Id::RSA | Id::RSA_PSS => key.bits() >= MIN_RSA_BITS,
        Id::EC => key.bits() >= MIN_CURVE_BITS,
        // Ed25519 and Ed448 come in one size each.
        _ => true,
    }
}

const MGF1: &[u8] = &oid!(raw 1.2.840.113549.1.1.8);
const SHA256: &[u8] = &oid!(raw 2.16.840.1.101.3.4.2.1);
const SHA384: &[u8] = &oid!(raw 2.16.840.1.101.3.4.2.2);
const SHA512: &[u8] = &oid!(raw 2.16.840.1.101.3.4.2.3);

/// What is malformed, where it is.
const WHAT: &str = "the parameters of RSASSA-PSS";

/// One of the SHA-2 hashes, with NULL as parameters or none.
fn hash_algorithm(bytes: &[u8]) -> Result<MessageDigest, Trouble> {
    der::read_all(bytes, |explicit| {
        der::read_all(explicit.content(SEQUENCE, WHAT)?, |algorithm| {
            let oid = algorithm.content(OBJECT_IDENTIFIER, WHAT)?;
            if algorithm.optional(NULL)?.is_some_and(|null| !null.is_empty()) {
                return Err(malformed(WHAT));
            }
            match oid {
                SHA256 => Ok(MessageDigest::sha256()),
                SHA384 => Ok(MessageDigest::sha384()),
                SHA512 => Ok(MessageDigest::sha512()),
                _ => Err(malformed(WHAT)),
            }
        })
    })
}

fn is_null(any: &Any<'_>) -> bool {
    let header = &any.header;
    header.is_universal() && header.is_primitive() && header.tag() == Tag::Null && any.data.is_empty()
}

enum Scheme {
    /// PKCS #1 v1.5 (RFC 8017, section 8.2).
    Rsa(MessageDigest),
    /// PSS (RFC 8017, section 8.1), and how many bytes of salt.
    RsaPss(MessageDigest, i32),
    Ecdsa(MessageDigest),
    /// Ed25519 or Ed448 (RFC 8410), which hash by themselves.
    EdDsa(Id),
}

impl Scheme {
    /// The signature algorithms of RFC 4055, RFC 5758 and RFC 8410 that are taken.
    fn of(algorithm: &AlgorithmIdentifier<'_>) -> Option<Self> {
        let oid = algorithm.oid();
        if *oid == oid!(1.2.840.113549.1.1.10) {
            return Self::pss(algorithm.parameters()?);
        }
        // The others have no parameters, which RSA writes as NULL, and some write with the rest, too.
        if !algorithm.parameters().is_none_or(is_null) {
            return None;
        }
        Some(if *oid == oid!(1.2.840.113549.1.1.11) {
            Self::Rsa(MessageDigest::sha256())
        } else if *oid == oid!(1.2.840.113549.1.1.12) {
            Self::Rsa(MessageDigest::sha384())
        } else if *oid == oid!(1.2.840.113549.1.1.13) {
            Self::Rsa(MessageDigest::sha512())
        } else if *oid == oid!(1.2.840.10045.4.3.2) {
            Self::Ecdsa(MessageDigest::sha256())
        } else if *oid == oid!(1.2.840.10045.4.3.3) {
            Self::Ecdsa(MessageDigest::sha384())
        } else if *oid == oid!(1.2.840.10045.4.3.4) {
            Self::Ecdsa(MessageDigest::sha512())
        } else if *oid == oid!(1.3.101.112) {
            Self::EdDsa(Id::ED25519)
        } else if *oid == oid!(1.3.101.113) {
            Self::EdDsa(ED448)
        } else {
            return None;
        })
    }

    /// RSASSA-PSS-params (RFC 4055, section 3.1). What is left out stands for SHA-1, which is not taken; the mask is made
    /// with the same hash, as is recommended there.
    fn pss(parameters: &Any<'_>) -> Option<Self> {
        let read = |parameters: &mut Reader<'_>| {
            let hash = parameters.content(context(0), WHAT)?;
            let mask = der::read_all(parameters.content(context(1), WHAT)?, |explicit| {
                der::read_all(explicit.content(SEQUENCE, WHAT)?, |mask| {
                    match mask.content(OBJECT_IDENTIFIER, WHAT)? {
                        MGF1 => mask.any().map(|hash| hash.whole),
                        _ => Err(malformed(WHAT)),
                    }
                })
            })?;
            let salt = match parameters.optional(context(2))? {
                Some(explicit) => der::read_all(explicit, |explicit| explicit.content(INTEGER, WHAT))?,
                None => &[20],
            };
            let is_odd = parameters.optional(context(3))?.is_some_and(|trailer| trailer != [INTEGER, 1, 1]);
            if mask != hash || is_odd {
                return Err(malformed(WHAT));
            }
            let salt = match salt {
                [short @ 0..=0x7f] => i32::from(*short),
                [0, low @ 0x80..=0xff] => i32::from(*low),
                [high @ 1..=0x7f, low] => i32::from(*high) << 8 | i32::from(*low),
                _ => return Err(malformed(WHAT)),
            };
            Ok(Self::RsaPss(hash_algorithm(hash)?, salt))
        };
        let header = &parameters.header;
        let is_sequence = header.is_universal() && header.is_constructed() && header.tag() == Tag::Sequence;
        if is_sequence { der::read_all(parameters.data, read).ok() } else { None }
    }

    /// Whether keys of this kind sign so.
    fn fits(&self, key: Id) -> bool {
        match self {
            Self::Rsa(_) => key == Id::RSA,
            // A key may also be for PSS alone.
            Self::RsaPss(..) => key == Id::RSA || key == Id::RSA_PSS,
            Self::Ecdsa(_) => key == Id::EC,
            Self::EdDsa(id) => key == *id,
        }
    }

    fn verify(&self, key: &PKey<Public>, signed: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        let mut verifier = match self {
            Self::Rsa(digest) | Self::RsaPss(digest, _) | Self::Ecdsa(digest) => Verifier::new(*digest, key)?,
            Self::EdDsa(_) => Verifier::new_without_digest(key)?,
        };
        if let Self::RsaPss(digest, salt) = self {
            verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
            verifier.set_rsa_mgf1_md(*digest)?;
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(*salt))?;
        }
        verifier.verify_oneshot(signature, signed)
    }
}

#[cfg(test)]
mod tests;
