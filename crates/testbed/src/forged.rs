//! This knows certificates that no CA issues: those of whoever wants to deceive or to exhaust a verifier.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;

use crate::crl::{integer, sign, tlv};
use crate::pki::Ca;

/// The fields of a TBSCertificate of version 3 (RFC 5280, section 4.1), by their positions.
const ALGORITHM: usize = 2;
const PUBLIC_KEY: usize = 6;

/// `rsaEncryption` (RFC 8017, appendix A.1) and `sha256WithRSAEncryption` (appendix A.2.4), each as an algorithm.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";

/// A certificate in parts, of which some may be replaced; whatever else it says, key identifiers included, stays.
#[derive(Clone, Debug)]
pub struct Forged {
    fields: Vec<Vec<u8>>,
}

impl Forged {
    /// Takes a certificate of version 3 in DER apart.
    pub fn of(certificate: &[u8]) -> Self {
        let signed_part = elements(contents(certificate)).swap_remove(0);
        Self { fields: elements(contents(&signed_part)) }
    }

    /// Replaces its public key by this `SubjectPublicKeyInfo`, in DER.
    pub fn public_key(mut self, info: &[u8]) -> Self {
        self.fields[PUBLIC_KEY] = info.to_vec();
        self
    }

    /// Signs it with a CA's P-256 key, whatever issuer it names.
    pub fn signed_by(&self, ca: &Ca) -> Vec<u8> {
        sign(&self.signed_part(), &self.fields[ALGORITHM], ca)
    }

    /// Puts these bytes in the place of a signature of an RSA key.
    pub fn with_rsa_signature(mut self, signature: &[u8]) -> Vec<u8> {
        self.fields[ALGORITHM] = RSA_SHA256.to_vec();
        tlv(0x30, &[&self.signed_part(), RSA_SHA256, &tlv(0x03, &[&[0], signature])])
    }

    /// Signs it with an RSA key, whatever issuer it names.
    pub fn signed_by_rsa(mut self, key: &Rsa<Private>) -> Vec<u8> {
        self.fields[ALGORITHM] = RSA_SHA256.to_vec();
        let key = PKey::from_rsa(key.clone()).expect("a key");
        let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
        let signature = signer.sign_oneshot_to_vec(&self.signed_part()).expect("a signature");
        self.with_rsa_signature(&signature)
    }

    fn signed_part(&self) -> Vec<u8> {
        tlv(0x30, &[&self.fields.concat()])
    }
}

/// A certificate in PEM (RFC 7468).
pub fn pem(certificate: &[u8]) -> String {
    let base64 = openssl::base64::encode_block(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// The public key of a certificate as its `SubjectPublicKeyInfo`, in DER.
pub fn public_key(certificate: &[u8]) -> Vec<u8> {
    Forged::of(certificate).fields.swap_remove(PUBLIC_KEY)
}

/// An RSA key of this modulus and exponent, big-endian and without a first bit that would be a sign.
pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let positive = |number: &[u8]| integer(&[&[0], number].concat());
    let key = tlv(0x30, &[&positive(modulus), &positive(exponent)]);
    tlv(0x30, &[RSA, &tlv(0x03, &[&[0], &key])])
}

/// An RSA key whose modulus has so many bits and is odd; nobody has its private key.
pub fn rsa_of(bits: usize, exponent: &[u8]) -> Vec<u8> {
    let mut modulus = vec![0xc5; bits / 8];
    modulus[bits / 8 - 1] = 0xc7;
    rsa(&modulus, exponent)
}

/// An EC key on a curve that it spells out (RFC 3279, section 2.3.5), modulo a number that is no prime, with a compressed base point:
/// to decompress it, a square root is to be found where the search for one need not end (CVE-2022-0778).
pub fn ec_without_prime() -> Vec<u8> {
    const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    const PRIME_FIELD: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x01\x01";
    // 697 is 17 times 41, and 1 modulo 8.
    let field = tlv(0x30, &[PRIME_FIELD, &integer(&[0x02, 0xb9])]);
    let curve = tlv(0x30, &[&tlv(0x04, &[&[0x00, 0x17]]), &tlv(0x04, &[&[0x02, 0x86]])]);
    let base = tlv(0x04, &[&[0x03, 0x00, 0x08]]);
    let parameters =
        tlv(0x30, &[&integer(&[1]), &field, &curve, &base, &integer(&[0x02, 0xb3]), &integer(&[1])]);
    let point = tlv(0x03, &[&[0, 0x03, 0x00, 0x08]]);
    tlv(0x30, &[&tlv(0x30, &[EC_PUBLIC_KEY, &parameters]), &point])
}

/// What is in a DER element.
fn contents(element: &[u8]) -> &[u8] {
    split(element).1
}

/// The elements that stand one after the other, each whole.
fn elements(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (header, contents) = split(bytes);
        let (element, rest) = bytes.split_at(header + contents.len());
        found.push(element.to_vec());
        bytes = rest;
    }
    found
}

/// The length of an element's identifier and length octets, and its contents.
fn split(bytes: &[u8]) -> (usize, &[u8]) {
    let (header, length) = match bytes[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let octets = &bytes[2..2 + usize::from(long & 0x7f)];
            (2 + octets.len(), octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)))
        }
    };
    (header, &bytes[header..header + length])
}
