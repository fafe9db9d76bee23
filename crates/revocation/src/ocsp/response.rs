//! This knows what an OCSP response is made of (RFC 6960, section 4.2.1). Nothing in it has been verified here.

use std::time::SystemTime;

use x509_parser::der_parser::oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;

use super::cert_id::CertId;
use crate::der::{
    self, BIT_STRING, BOOLEAN, ENUMERATED, Element, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER,
    OCTET_STRING, Reader, SEQUENCE, context, context_primitive, malformed,
};
use crate::{Answer, Status, Trouble};

const BASIC: &[u8] = &oid!(raw 1.3.6.1.5.5.7.48.1.1);
pub(super) const NONCE: &[u8] = &oid!(raw 1.3.6.1.5.5.7.48.1.2);

/// The most certificates that a response may have. It needs one, and some send the chain along.
const MAX_CERTIFICATES: usize = 10;

/// The most extensions in one place.
const MAX_EXTENSIONS: usize = 20;

/// A BasicOCSPResponse.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub(super) signed: Signed<'a>,
    pub(super) responder: ResponderId<'a>,
    pub(super) produced_at: SystemTime,
    pub(super) entries: Vec<Entry<'a>>,
    /// The value of the nonce extension.
    pub(super) nonce: Option<&'a [u8]>,
    /// In DER.
    pub(super) certificates: Vec<&'a [u8]>,
}

/// Bytes with a signature over them, as responses and certificates have it.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    /// As they came: what is written anew could be something else than what was signed.
    pub(super) bytes: &'a [u8],
    pub(super) algorithm: AlgorithmIdentifier<'a>,
    pub(super) signature: &'a [u8],
}

/// Who says that it has signed.
#[derive(Debug)]
pub(super) enum ResponderId<'a> {
    /// By its subject, in DER.
    Name(&'a [u8]),
    /// By the SHA-1 of the bits of its key.
    KeyHash(&'a [u8]),
}

/// A SingleResponse.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) id: CertId<'a>,
    pub(super) answer: Answer,
}

impl<'a> Response<'a> {
    /// Takes a response apart.
    ///
    /// # Errors
    /// It is none, or one that says that there is none; it has a critical extension that is not known, or one twice.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Trouble> {
        let basic = der::read_all(bytes, |outer| {
            der::read_all(outer.content(SEQUENCE, "it is no OCSP response")?, |response| {
                let status = response.content(ENUMERATED, "it is no OCSP response")?;
                let bytes = response.optional(context(0))?;
                successful(status)?;
                let bytes = bytes.ok_or_else(|| malformed("a successful response without an answer"))?;
                der::read_all(bytes, |explicit| explicit.content(SEQUENCE, "ResponseBytes"))
            })
        })?;
        let basic = der::read_all(basic, |response| {
            if response.content(OBJECT_IDENTIFIER, "a response type")? != BASIC {
                return Err(malformed("a response of another type than basic"));
            }
            response.content(OCTET_STRING, "a response")
        })?;
        der::read_all(basic, |outer| {
            der::read_all(outer.content(SEQUENCE, "BasicOCSPResponse")?, Self::basic)
        })
    }

    fn basic(basic: &mut Reader<'a>) -> Result<Self, Trouble> {
        let signed = Signed::read(basic)?;
        let certificates = match basic.optional(context(0))? {
            Some(explicit) => der::read_all(explicit, |explicit| {
                der::read_all(explicit.content(SEQUENCE, "certificates")?, |certificates| {
                    certificates.each(SEQUENCE, "a certificate", |certificate| Ok(certificate.whole))
                })
            })?,
            None => Vec::new(),
        };
        if certificates.len() > MAX_CERTIFICATES {
            return Err(malformed("too many certificates"));
        }
        let data = der::read_all(signed.bytes, |data| data.content(SEQUENCE, "ResponseData"))?;
        der::read_all(data, |data| {
            // DEFAULT v1, which some write all the same.
            if let Some(version) = data.optional(context(0))?
                && version != [INTEGER, 1, 0]
            {
                return Err(malformed("another version than 1"));
            }
            let responder = ResponderId::read(data.any()?)?;
            let produced_at = der::time(data.any()?)?;
            let entries = der::read_all(data.content(SEQUENCE, "entries")?, |entries| {
                entries.each(SEQUENCE, "an entry", |entry| der::read_all(entry.content, Entry::read))
            })?;
            let nonce = data.optional(context(1))?.map(extensions).transpose()?.flatten();
            Ok(Self { signed, responder, produced_at, entries, nonce, certificates })
        })
    }
}

/// The status of a response (RFC 6960, section 4.2.1: OCSPResponseStatus).
fn successful(status: &[u8]) -> Result<(), Trouble> {
    Err(Trouble::NotSuccessful(match status {
        [0] => return Ok(()),
        [1] => "malformedRequest",
        [2] => "internalError",
        [3] => "tryLater",
        [5] => "sigRequired",
        [6] => "unauthorized",
        _ => return Err(malformed("an unknown status")),
    }))
}

impl<'a> Signed<'a> {
    /// `SIGNED` (RFC 5912): what is signed, the algorithm, and the signature.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Trouble> {
        let bytes = reader.element(SEQUENCE, "what is signed")?.whole;
        let algorithm = algorithm(reader.element(SEQUENCE, "a signature algorithm")?)?;
        match reader.content(BIT_STRING, "a signature")? {
            [0, signature @ ..] => Ok(Self { bytes, algorithm, signature }),
            _ => Err(malformed("a signature")),
        }
    }
}

fn algorithm(element: Element<'_>) -> Result<AlgorithmIdentifier<'_>, Trouble> {
    der::read_all(element.content, |algorithm| {
        algorithm.content(OBJECT_IDENTIFIER, "a signature algorithm")?;
        if algorithm.is_at_end() { Ok(()) } else { algorithm.any().map(drop) }
    })?;
    let (_, algorithm) =
        AlgorithmIdentifier::from_der(element.whole).map_err(|_| malformed("a signature algorithm"))?;
    Ok(algorithm)
}

impl<'a> ResponderId<'a> {
    fn read(element: Element<'a>) -> Result<Self, Trouble> {
        const WHAT: &str = "a ResponderID";
        der::read_all(element.content, |explicit| match element.tag {
            tag if tag == context(1) => explicit.element(SEQUENCE, WHAT).map(|name| Self::Name(name.whole)),
            tag if tag == context(2) => explicit.content(OCTET_STRING, WHAT).map(Self::KeyHash),
            _ => Err(malformed(WHAT)),
        })
    }

    /// Whether it names whoever has this subject and this key.
    pub(super) fn is(&self, subject: &[u8], key_bits: &[u8]) -> bool {
        match self {
            Self::Name(name) => *name == subject,
            Self::KeyHash(hash) => *hash == openssl::sha::sha1(key_bits),
        }
    }
}

impl<'a> Entry<'a> {
    fn read(entry: &mut Reader<'a>) -> Result<Self, Trouble> {
        let id = CertId::read(entry.content(SEQUENCE, "a CertID")?)?;
        let status = status(entry.any()?)?;
        let this_update = der::time(entry.any()?)?;
        let next_update = match entry.optional(context(0))? {
            Some(explicit) => Some(der::read_all(explicit, |explicit| der::time(explicit.any()?))?),
            None => None,
        };
        if next_update.is_some_and(|next| next < this_update) {
            return Err(malformed("nextUpdate is before thisUpdate"));
        }
        if let Some(explicit) = entry.optional(context(1))? {
            extensions(explicit)?;
        }
        Ok(Self { id, answer: Answer { status, this_update, next_update } })
    }
}

fn status(element: Element<'_>) -> Result<Status, Trouble> {
    match element.tag {
        tag if tag == context_primitive(0) && element.content.is_empty() => Ok(Status::Good),
        tag if tag == context_primitive(2) && element.content.is_empty() => Ok(Status::Unknown),
        tag if tag == context(1) => der::read_all(element.content, |revoked| {
            let since = der::time(revoked.element(GENERALIZED_TIME, "a revocation time")?)?;
            // Whatever the reason is: it is revoked, also where it is only on hold.
            if let Some(explicit) = revoked.optional(context(0))? {
                der::read_all(explicit, |reason| reason.content(ENUMERATED, "a reason").map(drop))?;
            }
            Ok(Status::Revoked { since: Some(since) })
        }),
        _ => Err(malformed("an unknown certStatus")),
    }
}

/// Reads extensions, and returns the value of the nonce, where it is among them.
///
/// # Errors
/// One is critical and not known (RFC 6960, section 4.4), or stands twice: two readers could pick two of them.
fn extensions(explicit: &[u8]) -> Result<Option<&[u8]>, Trouble> {
    let extensions = der::read_all(explicit, |explicit| {
        der::read_all(explicit.content(SEQUENCE, "extensions")?, |extensions| {
            extensions.each(SEQUENCE, "an extension", extension)
        })
    })?;
    if extensions.len() > MAX_EXTENSIONS {
        return Err(malformed("too many extensions"));
    }
    for (at, (oid, _)) in extensions.iter().enumerate() {
        if extensions[..at].iter().any(|(other, _)| other == oid) {
            return Err(malformed("an extension stands twice"));
        }
    }
    Ok(extensions.iter().find(|(oid, _)| *oid == NONCE).map(|(_, value)| *value))
}

/// The OID of an extension, and its value.
fn extension(element: Element<'_>) -> Result<(&[u8], &[u8]), Trouble> {
    der::read_all(element.content, |extension| {
        let oid = extension.content(OBJECT_IDENTIFIER, "an extension")?;
        // FALSE is the default, which DER leaves out.
        match extension.optional(BOOLEAN)? {
            None => {}
            Some([0xff]) if oid == NONCE => {}
            Some([0xff]) => return Err(malformed("a critical extension that is not known")),
            Some(_) => return Err(malformed("an extension")),
        }
        Ok((oid, extension.content(OCTET_STRING, "an extension")?))
    })
}
