//! This knows CRLs (RFC 5280, sections 5 and 6.3): what they say of a certificate. Without I/O.
//!
//! They are direct ones only, signed with the key of whoever issued the certificate. Names are compared octet by octet, and
//! not by the rules of RFC 5280, section 7.1, under which two encodings may be one name: what does not match covers nothing.
//!
//! Nothing but the outline is read before the signature has been verified. Of the entries, their numbers and dates are kept,
//! and the rest of the CRL is let go.

mod contents;
mod scope;
mod serials;
mod verdict;

use std::ops::Range;
use std::time::SystemTime;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;

use crate::der::{self, malformed};
use crate::{DistributionPoint, Issuer, Trouble, signature};
use contents::{Contents, Head};
pub use verdict::{Source, Verdict, status};

/// A CRL whose signature was verified: whose serial numbers it has, and what it is about.
#[derive(Debug)]
pub struct Crl {
    issuer_name: Box<[u8]>,
    issuer_key: Box<[u8]>,
    contents: Contents,
}

/// A CRL that nobody has verified yet, since it is not known which CA has to have signed it.
#[derive(Debug)]
pub struct Unverified {
    der: Vec<u8>,
    /// Where the issuer's name is in it.
    issuer_name: Range<usize>,
}

impl Crl {
    /// Reads a CRL, in DER or as the only one in PEM, that this CA signed.
    ///
    /// # Errors
    /// It is none, is another CA's, is not signed with this CA's key or may not be, is an indirect one, or has a critical
    /// extension that is not known.
    pub fn read(bytes: &[u8], issuer: &Issuer) -> Result<Self, Trouble> {
        if is_der(bytes) {
            return Outline::read(bytes)?.verify(issuer);
        }
        match read_pem(bytes)?.as_slice() {
            [crl] => crl.verify(issuer),
            _ => Err(malformed("more than one CRL")),
        }
    }

    /// When it was made.
    pub fn this_update(&self) -> SystemTime {
        self.contents.this_update
    }

    /// When the next one comes at the latest. Where it does not say so, how long it counts is up to whoever got it.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.contents.next_update
    }

    /// Whether it is a delta CRL (RFC 5280, section 5.2.4), which counts beside a complete one only.
    pub fn is_delta(&self) -> bool {
        self.contents.base.is_some()
    }

    /// Where its delta CRLs are to be had, as it says (RFC 5280, section 5.2.6).
    pub fn freshest_points(&self) -> &[DistributionPoint] {
        &self.contents.freshest
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.contents.serials.len()
    }

    /// How many bytes of memory it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.issuer_name.len() + self.issuer_key.len() + self.contents.size()
    }

    fn is_of(&self, issuer: &Issuer) -> bool {
        *self.issuer_name == *issuer.name && *self.issuer_key == *issuer.key_bits
    }
}

/// Reads the outlines of all CRLs in these bytes, which are one in DER or some in PEM. Other kinds of PEM blocks are left
/// out.
///
/// # Errors
/// One of them is no CRL, or there is none.
pub fn read_all(bytes: &[u8]) -> Result<Vec<Unverified>, Trouble> {
    if is_der(bytes) { Ok(vec![Unverified::read(bytes.to_vec())?]) } else { read_pem(bytes) }
}

impl Unverified {
    fn read(der: Vec<u8>) -> Result<Self, Trouble> {
        let issuer_name = Outline::read(&der)?.issuer_name;
        Ok(Self { der, issuer_name })
    }

    /// Whose it claims to be: the name in DER, to be looked up as [`Issuer::name`].
    pub fn issuer_name(&self) -> &[u8] {
        &self.der[self.issuer_name.clone()]
    }

    /// How many bytes of memory it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.der.capacity()
    }

    /// Reads it, if this CA signed it.
    ///
    /// # Errors
    /// As [`Crl::read`].
    pub fn verify(&self, issuer: &Issuer) -> Result<Crl, Trouble> {
        Outline::read(&self.der)?.verify(issuer)
    }
}

/// CertificateList (RFC 5280, section 5.1), of which no entry has been looked at.
struct Outline<'a> {
    signed: &'a [u8],
    head: Head<'a>,
    issuer_name: Range<usize>,
    signature: &'a [u8],
}

impl<'a> Outline<'a> {
    fn read(der: &'a [u8]) -> Result<Self, Trouble> {
        let mut fields = der::only(der, der::SEQUENCE, "a CRL")?.inside();
        let signed = fields.element(der::SEQUENCE, "a CRL")?;
        let algorithm = fields.element(der::SEQUENCE, "a CRL")?.whole;
        let [0, signature @ ..] = fields.element(der::BIT_STRING, "a CRL")?.content else {
            return Err(malformed("a signature that is no whole octets"));
        };
        fields.end()?;
        let head = Head::read(signed)?;
        // The outer one is not signed (RFC 5280, section 5.1.1.2).
        if head.algorithm != algorithm {
            return Err(malformed("two different algorithms of the signature"));
        }
        let start = head.issuer.as_ptr().addr() - der.as_ptr().addr();
        let issuer_name = start..start + head.issuer.len();
        Ok(Self { signed: signed.whole, head, issuer_name, signature })
    }

    fn verify(&self, issuer: &Issuer) -> Result<Crl, Trouble> {
        if self.head.issuer != issuer.name {
            return Err(Trouble::SomethingElse("the CRL is another issuer's"));
        }
        if !issuer.signs_crls {
            return Err(Trouble::WrongSigner("the CA's key usage has no cRLSign"));
        }
        let (_, algorithm) = AlgorithmIdentifier::from_der(self.head.algorithm)
            .map_err(|error| malformed(format!("the algorithm of the signature: {error}")))?;
        signature::verify(&algorithm, &issuer.key, self.signed, self.signature)?;
        Ok(Crl {
            issuer_name: issuer.name.as_slice().into(),
            issuer_key: issuer.key_bits.as_slice().into(),
            contents: self.head.contents()?,
        })
    }
}

fn is_der(bytes: &[u8]) -> bool {
    bytes.first() == Some(&der::SEQUENCE)
}

fn read_pem(bytes: &[u8]) -> Result<Vec<Unverified>, Trouble> {
    let crls = CertificateRevocationListDer::pem_slice_iter(bytes)
        .map(|crl| Unverified::read(crl.map_err(|error| malformed(format!("{error:?}")))?.to_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    if crls.is_empty() { Err(malformed("neither DER nor PEM of a CRL")) } else { Ok(crls) }
}
