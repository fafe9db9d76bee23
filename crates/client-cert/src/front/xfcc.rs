//! This knows Envoy's `X-Forwarded-Client-Cert`, in its text format.
//!
//! ```text
//! By=spiffe://a;Hash=468e…;Cert="-----BEGIN%20CERTIFICATE…";Chain="-----BEGIN…";Subject="CN=\"x\",O=y";URI=spiffe://b
//! ```
//!
//! An element is a list of `key=value` with `;` between; a value in double quotes may hold any character, with a backslash
//! before a quote. Each proxy on the way appends an element, after a comma (`APPEND_FORWARD`) or writes the only one
//! (`SANITIZE_SET`).
//!
//! # Why only one element is taken
//! The first may be the client's own. The last is the nearest proxy's, and yet it cannot be told with certainty: Envoy
//! writes the URIs and DNS names of the certificate without quotes or escapes, so a client whose certificate has the
//! URI `x,Hash=…;Cert="…"` makes a last element of its own; and that such a certificate is trusted is decided only here.
//! Nor is the last one the client's where proxies speak TLS with each other: then it is the certificate of the proxy
//! before, and every client would pass as that. So more than one element is refused, and the front is to be set to
//! `SANITIZE_SET`.
//!
//! Within the element, `Hash` is required: Envoy writes it before all that a certificate can spell, so that a `Cert` in
//! a URI is given away by it or by a key that stands twice.

use sha2::{Digest, Sha256};

use super::{FrontError, pem, percent};
use crate::Presented;

/// Why an `X-Forwarded-Client-Cert` does not give a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XfccError {
    /// Not `key=value` pairs with `;` between. Envoy's JSON format does not even begin like this one.
    #[error("not X-Forwarded-Client-Cert in its text format")]
    Syntax,
    /// Several proxies, or a client beside the proxy, wrote into it, and nothing says for certain who wrote what. Envoy
    /// sends one element with `forward_client_cert_details: SANITIZE_SET`.
    #[error("X-Forwarded-Client-Cert with more than one element")]
    Elements,
    /// A key that says what the certificate is, and stands twice.
    #[error("X-Forwarded-Client-Cert with a second {0}")]
    Twice(&'static str),
    /// Neither `Cert` nor `Chain`: the front saw a certificate and does not hand it on. Envoy does with
    /// `set_current_client_cert_details: {cert: true}`.
    #[error("X-Forwarded-Client-Cert without Cert and Chain")]
    NoCertificate,
    /// `Cert` with more than one certificate.
    #[error("X-Forwarded-Client-Cert with several certificates in Cert")]
    SeveralLeaves,
    /// `Chain` has the whole chain and begins with the leaf; this one begins with another certificate than `Cert`.
    #[error("X-Forwarded-Client-Cert with a Chain that does not begin with Cert")]
    OtherChain,
    /// No `Hash`, or not the SHA-256 digest of the certificate.
    #[error("X-Forwarded-Client-Cert whose Hash is not that of its certificate")]
    Hash,
}

/// What an element says of the certificate, still encoded.
#[derive(Default)]
struct Element<'a> {
    hash: Option<&'a [u8]>,
    cert: Option<&'a [u8]>,
    chain: Option<&'a [u8]>,
}

/// Whether a value is meant to be of this form. PEM and base64 of a certificate never begin like this.
pub(super) fn begins(value: &[u8]) -> bool {
    split_key(value).is_ok()
}

/// Reads the certificates of the only element.
///
/// # Errors
/// See [`XfccError`], and [`FrontError`] for the PEM in it.
pub(super) fn decode(value: &[u8]) -> Result<Presented, FrontError> {
    let element = Element::parse(value)?;
    let cert = element.cert.map(certificates).transpose()?;
    let chain = element.chain.map(certificates).transpose()?;
    let mut presented = match (cert, chain) {
        (None, None) => return Err(XfccError::NoCertificate.into()),
        (Some(cert), _) if cert.len() > 1 => return Err(XfccError::SeveralLeaves.into()),
        (Some(cert), Some(chain)) if cert.first() != chain.first() => {
            return Err(XfccError::OtherChain.into());
        }
        (_, Some(certificates)) | (Some(certificates), None) => certificates.into_iter(),
    };
    let leaf = presented.next().ok_or(FrontError::Pem)?;
    if !element.hash.is_some_and(|hash| is_digest_of(hash, &leaf)) {
        return Err(XfccError::Hash.into());
    }
    Ok(Presented { leaf, chain: presented.collect() })
}

impl<'a> Element<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, XfccError> {
        let mut element = Self::default();
        let mut rest = value;
        loop {
            let (key, after) = split_key(rest)?;
            let (text, after) = split_value(after)?;
            element.set(key, text)?;
            rest = match after {
                [] => return Ok(element),
                [b';', after @ ..] => after,
                [b',', ..] => return Err(XfccError::Elements),
                _ => return Err(XfccError::Syntax),
            };
        }
    }

    /// Envoy repeats `By`, `URI` and `DNS`, and newer versions have more keys: they say nothing here.
    fn set(&mut self, key: &[u8], text: &'a [u8]) -> Result<(), XfccError> {
        let keys = [("Hash", &mut self.hash), ("Cert", &mut self.cert), ("Chain", &mut self.chain)];
        for (name, place) in keys {
            if key.eq_ignore_ascii_case(name.as_bytes()) && place.replace(text).is_some() {
                return Err(XfccError::Twice(name));
            }
        }
        Ok(())
    }
}

fn split_key(rest: &[u8]) -> Result<(&[u8], &[u8]), XfccError> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    match rest.split_at(length) {
        (key @ [_, ..], [b'=', after @ ..]) => Ok((key, after)),
        _ => Err(XfccError::Syntax),
    }
}

/// The value without its quotes but with its backslashes: no value that counts has any.
fn split_value(rest: &[u8]) -> Result<(&[u8], &[u8]), XfccError> {
    let [b'"', quoted @ ..] = rest else {
        let length = rest.iter().take_while(|byte| !matches!(byte, b';' | b',')).count();
        let (value, after) = rest.split_at(length);
        return if value.contains(&b'"') { Err(XfccError::Syntax) } else { Ok((value, after)) };
    };
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'"' => return Ok((&quoted[..at], &quoted[at + 1..])),
            _ => {}
        }
    }
    Err(XfccError::Syntax)
}

fn certificates(value: &[u8]) -> Result<Vec<Vec<u8>>, FrontError> {
    pem::certificates(&percent::decode(value)?)
}

/// Envoy writes the digest in hexadecimal.
fn is_digest_of(hash: &[u8], der: &[u8]) -> bool {
    let (pairs, rest) = hash.as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|&[high, low]| percent::byte(high, low)).collect();
    rest.is_empty() && bytes.is_some_and(|bytes| bytes == Sha256::digest(der).as_slice())
}
